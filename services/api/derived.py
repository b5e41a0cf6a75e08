"""Making jobs from jobs: the requests of `extend`, `fork` and `clone`, and how a parent's stored request changes by them.

A changed part (`search`, `training`, …) is merged field by field; the whole is then checked like a request of its own.
"""

from typing import Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError
from sqlalchemy.orm import Session

from glora_core.effort import EffortName
from services.api.agreement import check_parts_agree, check_searched_metric, check_second, check_space
from services.api.sending import Sending
from services.api.submission import Cloned, submit
from services.job_effort import with_loose_finals, without_effort
from services.job_request import Budget, JobRequest, Line
from services.job_settings import Strict
from services.settings import Settings
from services.store import jobs, lineage, queue
from services.store.database import Database
from services.store.models import Backbone, Job
from services.store.queue import Quotas

Name = Field(None, max_length=120, description="Name for humans; the parent's if absent.")


class ExtendRequest(Strict):
    """How far to go on with a finished search."""

    generations: int = Field(ge=1, le=10_000, description="So many more.", examples=[10])
    name: Line | None = Name


class ForkRequest(Strict):
    """What is to be different about another search over the same supernet."""

    name: Line | None = Name
    budget: Budget | None = Field(None, description="Another upper bound on trainable parameters.", examples=["50k"])
    seed: int | None = Field(None, ge=0, lt=2**63, description="Another seed of the search's draws; the supernet keeps its own.")
    search: dict[str, Any] = Field({}, description="Fields of `search` that change, such as `strategy`, `metric` or `generations`.")
    finals: dict[str, Any] = Field({}, description="Fields of `finals` that change.")
    baselines: bool | Literal["trained"] | None = Field(None, description="Whether baselines are reported, and whether trained alone.")
    train_on_val: bool | None = Field(None, description="Whether what won is trained once more on train and val together.")
    priority: int | None = Field(None, ge=-100, le=100, description="Another priority.")
    max_hours: float | None = Field(None, gt=0, le=100_000, description="Another bound on the hours that it may run.")


class CloneRequest(Strict):
    """What is to be different about a job that is submitted once more; every field of a submission, all of them optional."""

    name: Line | None = Name
    backbone: dict[str, Any] = Field({}, description="Fields of `backbone` that change.")
    data: dict[str, Any] = Field({}, description="Fields of `data` that change.")
    budget: Budget | None = Field(None, description="Another upper bound on trainable parameters.")
    effort: EffortName | None = Field(None, description="Another effort, whose numbers replace the parent's where the changes name none.")
    space: dict[str, Any] = Field({}, description="Fields of `space` that change.")
    training: dict[str, Any] = Field({}, description="Fields of `training` that change.", examples=[{"epochs": 120}])
    search: dict[str, Any] = Field({}, description="Fields of `search` that change.")
    finals: dict[str, Any] = Field({}, description="Fields of `finals` that change.")
    resources: dict[str, Any] = Field({}, description="Fields of `resources` that change: `worker` or `evaluator`, each as a whole.")
    baselines: bool | Literal["trained"] | None = Field(None, description="Whether baselines are reported, and whether trained alone.")
    train_on_val: bool | None = Field(None, description="Whether what won is trained once more on train and val together.")
    priority: int | None = Field(None, ge=-100, le=100, description="Another priority.")
    max_hours: float | None = Field(None, gt=0, le=100_000, description="Another bound on the hours that it may run.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Another seed of everything random.")


def extend(
    database: Database, settings: Settings, user: str, parent_id: str, asked: ExtendRequest, key: str | None = None
) -> tuple[Job, bool]:
    """A queued job of a user that goes on where a succeeded one ended, and whether it is new: under an idempotency key it is made once.

    Raises NotFound, WrongState, Problem or RequestValidationError.
    """

    def create(session: Session) -> Job:
        queue.check_quotas(session, user, Quotas.of(settings))
        parent = jobs.locked(session, parent_id)
        more = {"search": {"generations": parent.request["search"]["generations"] + asked.generations}, "name": asked.name}
        request = changed(parent.request, more)
        return lineage.extend(session, parent, user=user, name=asked.name or "", request=request.model_dump(mode="json"))

    return Sending(database, settings, user, _text("extend", parent_id, asked), key).make(create)


def fork(database: Database, settings: Settings, user: str, parent_id: str, asked: ForkRequest, key: str | None = None) -> tuple[Job, bool]:
    """A queued job that searches the same supernet in another way; returns and raises as `extend`."""
    changes = asked.model_dump(exclude={"seed"}, exclude_unset=True)
    changes["search"] = asked.search | ({} if asked.seed is None else {"seed": asked.seed})

    def create(session: Session) -> Job:
        queue.check_quotas(session, user, Quotas.of(settings))
        parent = jobs.locked(session, parent_id)
        drawn_within = parent.request["training"].get("sampling_budget")
        changes["training"] = {"sampling_budget": parent.request["budget"] if drawn_within is None else drawn_within}
        request = changed(parent.request, changes if parent.request["training"]["sampling"] == "budget" else changes | {"training": {}})
        check_parts_agree(request)
        check_second(request, parent.data)
        check_searched_metric(request, len(parent.data["classes"]))
        check_space(request, session.get_one(Backbone, parent.backbone_key))
        return lineage.fork(session, parent, user=user, name=asked.name or "", request=request.model_dump(mode="json"))

    return Sending(database, settings, user, _text("fork", parent_id, asked), key).make(create)


def clone(
    database: Database, settings: Settings, user: str, parent_id: str, asked: CloneRequest, key: str | None = None
) -> tuple[Job, bool]:
    """A queued job by the request of another with changes, checked like a new one. Returns and raises as `submit`, and NotFound."""
    with database.read() as session:
        parent = jobs.get(session, parent_id)
    request = changed(parent.request, asked.model_dump(exclude_unset=True))
    return submit(database, settings, request, user, key, Cloned(parent_id, _text("clone", parent_id, asked)))


def _text(action: str, parent_id: str, asked: Strict) -> str:
    return f"{action} {parent_id} {asked.model_dump_json(exclude_unset=True)}"


def changed(request: dict[str, Any], changes: dict[str, Any]) -> JobRequest:
    """A stored request with changes: parts merged field by field, the rest replaced; None is no change but where it is accepted.

    Raises:
        RequestValidationError: what results cannot be asked for.
    """
    given = {name: value for name, value in changes.items() if value is not None or name == "max_hours"}
    if "effort" in given:
        request = without_effort(request)
    elif given.get("training"):
        request = with_loose_finals(request)
    parts = {name: request.get(name, {}) | value for name, value in given.items() if isinstance(value, dict)}
    try:
        return JobRequest.model_validate(request | given | parts)
    except ValidationError as error:
        raise RequestValidationError([entry | {"loc": ("body", *entry["loc"])} for entry in error.errors()]) from error
