"""The front of a job's search: the candidates that none beats in fitness, parameters and, where there is one, the second objective."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, literal, select
from sqlalchemy.orm import Session, aliased

from glora_core.search.front import pareto_front
from services.store import search_state
from services.store.models import Candidate, Evaluation, Job

_PAGE_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A candidate of the front as it was first proposed; `second_accuracy` is on the part of the second objective's set for selection."""

    generation: int
    position: int
    operator: str
    parents: list[Any]
    hash: str
    config: str
    parameters: int
    fitness: float
    accuracy: float
    macro_accuracy: float | None
    loss: float
    second_accuracy: float | None


def second_split(job: Job) -> str | None:
    """The name in SQL of what the second objective is measured on; None if the job has none."""
    name = job.request.get("search", {}).get("second")
    return None if name is None else str(job.data["also_test"][name]["parts"]["selection"]["fingerprint"])[:16]


def front(session: Session, job: Job) -> list[FrontPoint]:
    """The front of all stored generations, by fitness, best first."""
    points = sorted(_distinct(session, job), key=lambda point: (-point.fitness, point.loss, point.parameters))
    if second_split(job) is None:
        return pareto_front(points, lambda point: (point.fitness, -point.parameters))
    return pareto_front(points, lambda point: (point.fitness, -point.parameters, point.second_accuracy or 0.0))


def _distinct(session: Session, job: Job) -> list[FrontPoint]:
    """Every candidate that is measured in all objectives, once."""
    second, split = aliased(Evaluation), second_split(job)
    query = (
        select(Candidate, Evaluation, second.accuracy if split else literal(None))
        .join(Evaluation, search_state.measured(job))
        .where(Candidate.job_id == job.id)
        .order_by(Candidate.generation, Candidate.position)
    )
    if split:
        of_second = and_(
            second.supernet_key == job.supernet_key,
            second.config_hash == Candidate.config_hash,
            second.split == split,
            second.protocol == search_state.protocol_of(job),
            second.metric == search_state.metric_of(job),
        )
        query = query.join(second, of_second)
    found: dict[str, FrontPoint] = {}
    for candidate, row, accuracy in session.execute(query.execution_options(yield_per=_PAGE_ROWS)):
        found.setdefault(candidate.config_hash, _point(candidate, row, accuracy))
    return list(found.values())


def _point(candidate: Candidate, row: Evaluation, second_accuracy: float | None) -> FrontPoint:
    return FrontPoint(
        generation=candidate.generation,
        position=candidate.position,
        operator=candidate.operator,
        parents=candidate.parents,
        hash=candidate.config_hash,
        config=candidate.config,
        parameters=candidate.parameters,
        fitness=row.fitness,
        accuracy=row.accuracy,
        macro_accuracy=row.macro_accuracy,
        loss=row.loss,
        second_accuracy=second_accuracy,
    )
