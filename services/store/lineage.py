"""Jobs made from jobs: who descends from whom, by which action, and what an extended job takes over from its parent.

A finished job never changes: extending it makes a job that starts from a copy of its generations. The evaluations are shared
through the supernet anyway.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, literal, select
from sqlalchemy.orm import Session

from services.store import events, jobs, search_state
from services.store.errors import WrongState
from services.store.models import Base, Candidate, Generation, Job


@dataclass(frozen=True, slots=True)
class Origin:
    """Which job another was made from, by which action, and how many generations it took over."""

    job: str
    action: str
    inherited: int = 0


def origin_of(job: Job) -> Origin | None:
    """Where a job comes from; None if it was submitted by itself."""
    return None if job.parent_id is None else Origin(job.parent_id, job.parent_action or "", job.inherited)


def tie(session: Session, job: Job, parent_id: str, action: str) -> None:
    """Note which job a new one was made from."""
    job.parent_id, job.parent_action = parent_id, action
    events.append(session, job.id, "made_from", {"job": parent_id, "action": action})


def fork(session: Session, parent: Job, *, user: str, name: str, request: dict[str, Any]) -> Job:
    """A queued job over the same supernet, by another request. Raises WrongState if there is no supernet yet."""
    if parent.supernet_key is None or search_state.supernet(session, parent.supernet_key) is None:
        message = f"job {parent.id} is {parent.state} and has no supernet yet; it can be forked once one is trained"
        raise WrongState(message, parent.state, ("succeeded",))
    return _over_same_supernet(session, parent, "fork", user, name, request)


def extend(session: Session, parent: Job, *, user: str, name: str, request: dict[str, Any]) -> Job:
    """A queued job that goes on from the generations of a succeeded one, by its request with more of them. Raises WrongState."""
    if parent.state != "succeeded":
        message = f"job {parent.id} is {parent.state}; only a succeeded job can be extended, any other can be cloned"
        raise WrongState(message, parent.state, ("succeeded",))
    job = _over_same_supernet(session, parent, "extend", user, name, request)
    for model in (Generation, Candidate):  # in this order: candidates refer to generations
        _copy(session, model, parent.id, job.id)
    last = search_state.last_generation(session, job.id)
    job.inherited = last.number + 1 if last else 0
    return job


def children(session: Session, job_id: str) -> list[tuple[str, str]]:
    """Ids of the jobs made from a job, oldest first, each with the action that made it."""
    query = select(Job.id, Job.parent_action).where(Job.parent_id == job_id).order_by(Job.created_at, Job.id)
    return [(child, str(action)) for child, action in session.execute(query)]


def _over_same_supernet(session: Session, parent: Job, action: str, user: str, name: str, request: dict[str, Any]) -> Job:
    job = jobs.create(session, name=name or parent.name, request=request, backbone_key=parent.backbone_key, data=parent.data, user=user)
    job.supernet_key = parent.supernet_key
    tie(session, job, parent.id, action)
    return job


def _copy(session: Session, model: type[Base], old: str, new: str) -> None:
    """All rows of a job, for another."""
    table = model.__table__
    columns = [literal(new) if column.name == "job_id" else column for column in table.columns]
    session.execute(insert(model).from_select([c.name for c in table.columns], select(*columns).where(table.c.job_id == old)))
