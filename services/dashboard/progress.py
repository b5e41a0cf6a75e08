"""How far a job is: its phases as steps, what its current phase has done, and how long the rest of it may take."""

from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.dashboard.wording import roughly
from services.job_request import JobRequest
from services.store.models import Job, JobEvent
from services.store.places import Waiting

STEPS = ("queued", "prepare", "train", "search", "finals", "export", "done")
_REPORTS = {"train": "epoch", "search": "generation", "finals": "finalist"}
_RECENT = 10


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job's way; `state` is `done`, `current`, `stopped` or `waiting`."""

    name: str
    state: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a job stands, in words; the share of its phase that is done, and an estimate of the rest, where known."""

    text: str
    share: float | None = None
    left: str | None = None


def steps(job: Job) -> tuple[Step, ...]:
    """All steps in order, with the one that the job has reached or ended in."""
    if job.state == "succeeded":
        return tuple(Step(name, "done") for name in STEPS)
    started = job.state != "queued" and job.started_at is not None
    reached = STEPS.index(job.phase or "prepare") if started else 0
    here = "current" if job.state in ("queued", "running", "paused") else "stopped"
    return tuple(Step(name, "done" if i < reached else here if i == reached else "waiting") for i, name in enumerate(STEPS))


def progress(session: Session, job: Job, request: JobRequest, place: Waiting | None = None) -> Progress:
    """Where a job stands. Reads the latest events of a running job; a job that waits or is over needs none.

    Args:
        place: of a queued job.
    """
    if job.state == "queued":
        text = "waiting to resume" if job.started_at else "waiting"
        return Progress(text if place is None else f"{text}, {place.position} of {place.of}: {place.message}")
    if job.state == "succeeded":
        return Progress("complete")
    if job.state == "paused":
        return Progress(f"paused in {job.phase}" if job.phase else "paused before it started")
    if job.state != "running":
        return Progress(f"stopped in {job.phase}" if job.phase else "never started")
    phase, latest = job.phase or "prepare", _last(session, job.id)
    if latest is not None and latest.kind == "room_awaited":
        return Progress(f"waiting for room: {latest.data['message']}")
    if phase not in _REPORTS:
        return Progress({"prepare": "preparing", "export": "exporting"}.get(phase, phase))
    done, total, pace = _counted(session, job, request, phase)
    left = roughly(pace * (total - done)) if pace is not None and done < total else None
    share = done / total if total else None
    return Progress(
        _words(phase, done, total), share, f"{left} left in this phase" if left else "this phase is done" if share == 1 else None
    )


def _words(phase: str, done: int, total: int) -> str:
    if phase == "finals":
        return f"finalist {done:,} of {total:,}" if total else "finals"
    return f"{_REPORTS[phase]} {done:,} of {total:,}"


def _counted(session: Session, job: Job, request: JobRequest, phase: str) -> tuple[int, int, float | None]:
    """How many reports of a phase there are, how many there will be, and the seconds from one to the next, where known."""
    recent = _latest(session, job.id, _REPORTS[phase])
    if phase == "train":
        return (int(recent[0].data["epoch"]) if recent else 0), request.training.epochs, _typical_gap(recent)
    if phase == "search":
        return (int(recent[0].data["generation"]) + 1 if recent else 0), request.search.generations, _typical_gap(recent)
    opening = _latest(session, job.id, "finals", 1)
    if not opening:
        return 0, 0, None
    since = opening[0].sequence
    kinds = ("finalist", "finalist_diverged")
    query = select(func.count()).where(JobEvent.job_id == job.id, JobEvent.kind.in_(kinds), JobEvent.sequence > since)
    fresh = session.scalar(query) or 0
    # trials run side by side and report together: the time since the rung began tells, not that between two reports
    pace = (recent[0].at - opening[0].at).total_seconds() / fresh if recent and recent[0].sequence > since else None
    return int(opening[0].data["done"]) + fresh, int(opening[0].data["finalists"]), pace


def _latest(session: Session, job_id: str, kind: str, limit: int = _RECENT) -> list[JobEvent]:
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.kind == kind)
    return list(session.scalars(query.order_by(JobEvent.sequence.desc()).limit(limit)))


def _last(session: Session, job_id: str) -> JobEvent | None:
    return session.scalar(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.sequence.desc()).limit(1))


def _typical_gap(recent: list[JobEvent]) -> float | None:
    """The median interval of the latest reports, newest first; a pause of the service between two does not spoil it."""
    gaps = [(newer.at - older.at).total_seconds() for newer, older in pairwise(recent)]
    return median(gaps) if gaps else None
