"""Route of a job's Pareto front."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from services.api.deps import DatabaseDep
from services.api.jobs import UNKNOWN
from services.api.models import EvaluationView, _FromRow
from services.store import jobs, pareto, search_state

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class ParetoPoint(EvaluationView, _FromRow):
    """A candidate that no other one of the search beats in all objectives."""

    second_accuracy: float | None = Field(
        description="Accuracy, 0–1, on the part for selection of the second objective's test set; null where there is none."
    )


class ParetoFront(BaseModel):
    """The front of a search, by fitness, best first."""

    metric: str = Field(description="What the fitness is, `search.metric`.")
    second: str | None = Field(description="Test set of the second objective, `search.second`.")
    items: list[ParetoPoint]


@router.get("/{job_id}/pareto", summary="Pareto front of a job", responses=UNKNOWN)
def get_front(job_id: str, database: DatabaseDep) -> ParetoFront:
    """Candidates of all finished generations that none beats in fitness, parameters and the second objective, if there is one."""
    with database.read() as session:
        job = jobs.get(session, job_id)
        items = [ParetoPoint.model_validate(point) for point in pareto.front(session, job)]
        return ParetoFront(metric=search_state.metric_of(job), second=job.request.get("search", {}).get("second"), items=items)
