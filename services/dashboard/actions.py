"""What a job's page offers to do with the job, and the jobs it is kin to."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from services.store import lineage, search_state
from services.store.jobs import ALIVE
from services.store.lineage import Origin
from services.store.models import Job


@dataclass(frozen=True, slots=True)
class Action:
    """A button; `pending` while what it asks for is under way, and the button is dead."""

    name: str
    label: str
    pending: bool = False


@dataclass(frozen=True, slots=True)
class Child:
    """A job made from this one, and by which action."""

    job: str
    action: str


@dataclass(frozen=True, slots=True)
class Kin:
    """Where a job comes from, what was made from it, whom it waits for to train their supernet, and what a study did with it.

    `study` is the study's id and the trial's number; `cancel_reason` why it was cancelled, where that was not a person's wish.
    """

    origin: Origin | None
    children: tuple[Child, ...]
    waiting_for: str | None
    study: tuple[str, int] | None
    cancel_reason: str | None


def actions(session: Session, job: Job) -> tuple[Action, ...]:
    """The actions that the job's state allows."""
    offered = [Action("clone", "Clone")]
    if job.supernet_key is not None and search_state.supernet(session, job.supernet_key) is not None:
        offered.insert(0, Action("fork", "Fork"))
    if job.state == "succeeded":
        offered.insert(0, Action("extend", "Extend"))
    if job.state not in ALIVE:
        return (*offered, Action("delete", "Delete"))
    if job.state == "paused" or job.pause_requested:
        offered.insert(0, Action("resume", "Resume"))
    if job.state != "paused" and not job.cancel_requested:
        offered.insert(0, Action("pause", "Pausing…" if job.pause_requested else "Pause", job.pause_requested))
    cancelling = job.cancel_requested and job.state == "running"
    return (*offered, Action("cancel", "Cancelling…" if cancelling else "Cancel job", cancelling))


def kin(session: Session, job: Job) -> Kin:
    """The jobs that a job is kin to."""
    children = tuple(Child(*pair) for pair in lineage.children(session, job.id))
    study = None if job.study_id is None else (job.study_id, job.study_trial or 0)
    return Kin(lineage.origin_of(job), children, job.waiting_for, study, job.cancel_reason)
