"""Jobs: creation, listing, the state machine, and the lease under which one runner owns a job.

States: `queued → running → succeeded | failed | cancelled`. A running job whose lease has expired may be claimed again.
Every claim raises the lease's epoch, and every write of a runner carries it (`fenced`), so a runner that lost its job
cannot write.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from services.store import events
from services.store.database import Database
from services.store.errors import LeaseLost, NotFound, WrongState
from services.store.models import Job

FINAL = frozenset({"succeeded", "failed", "cancelled"})
STATES = ("queued", "running", *sorted(FINAL))


@dataclass(frozen=True, slots=True)
class Lease:
    """A runner's claim on a job: valid while the job's row carries this epoch."""

    job_id: str
    owner: str
    epoch: int


def create(session: Session, *, name: str, request: dict[str, Any], backbone_key: str, data: dict[str, Any]) -> Job:
    """A new queued job."""
    job = Job(
        id=f"j{secrets.token_hex(6)}",
        name=name,
        state="queued",
        request=request,
        backbone_key=backbone_key,
        data=data,
        cancel_requested=False,
        attempts=0,
        lease_epoch=0,
        created_at=datetime.now(UTC),
    )
    session.add(job)
    session.flush()
    events.append(session, job.id, "queued", {"name": name})
    return job


def get(session: Session, job_id: str) -> Job:
    """A job by its id. Raises NotFound."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"no job {job_id!r}")
    return job


def page(session: Session, *, state: str | None = None, before: str | None = None, limit: int = 50) -> list[Job]:
    """Jobs, newest first, at most `limit`; `before` is the id of the last job of the page before."""
    query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Job.state == state)
    if before is not None:
        last = get(session, before)
        older = or_(Job.created_at < last.created_at, and_(Job.created_at == last.created_at, Job.id < last.id))
        query = query.where(older)
    return list(session.scalars(query))


def count_running(session: Session) -> int:
    """How many jobs run now."""
    return session.scalar(select(func.count()).select_from(Job).where(Job.state == "running")) or 0


def request_cancel(session: Session, job_id: str) -> Job:
    """Cancel a queued job at once; ask the runner of a running one to end. Raises NotFound, or WrongState if it is over."""
    job = _locked(session, job_id)
    if job.state in FINAL:
        raise WrongState(f"job {job_id} has {job.state} already; only a queued or running job can be cancelled")
    if job.state == "queued":
        _finish(session, job, "cancelled", {})
    elif not job.cancel_requested:
        job.cancel_requested = True
        events.append(session, job_id, "cancel_requested", {})
    return job


def claim(session: Session, owner: str, lease_seconds: float, max_attempts: int) -> Lease | None:
    """Take the oldest job that is queued, or running under an expired lease; None if there is none.

    A runner whose lease ran out counts as a failed attempt; a job that has had all its attempts is failed instead, and one
    whose cancellation was requested is cancelled.
    """
    while (job := _next_free(session)) is not None:
        if job.cancel_requested:
            cancelled(session, job)
        elif job.state == "queued" or _another_attempt(session, job, max_attempts, "its runner's lease ran out"):
            break
    else:
        return None
    now = datetime.now(UTC)
    job.state, job.lease_owner = "running", owner
    job.lease_epoch += 1
    job.lease_expires_at = now + timedelta(seconds=lease_seconds)
    events.append(session, job.id, "resumed" if job.started_at else "started", {"epoch": job.lease_epoch})
    job.started_at = job.started_at or now
    return Lease(job.id, owner, job.lease_epoch)


@contextmanager
def fenced(database: Database, lease: Lease) -> Iterator[tuple[Session, Job]]:
    """A write transaction that only the holder of the lease gets. Raises LeaseLost, with nothing written, otherwise."""
    with database.write() as session:
        job = _locked(session, lease.job_id)
        if job.lease_epoch != lease.epoch or job.lease_owner != lease.owner or job.state != "running":
            raise LeaseLost(f"job {lease.job_id}: epoch {lease.epoch} is over (now {job.lease_epoch}, {job.state})")
        yield session, job


def renew(database: Database, lease: Lease, lease_seconds: float) -> bool:
    """Extend the lease; returns whether a cancellation is requested. Raises LeaseLost."""
    with fenced(database, lease) as (_, job):
        job.lease_expires_at = datetime.now(UTC) + timedelta(seconds=lease_seconds)
        return job.cancel_requested


def release(session: Session, job: Job) -> None:
    """Put a running job back into the queue."""
    job.state, job.lease_owner, job.lease_expires_at = "queued", None, None
    events.append(session, job.id, "requeued", {"attempts": job.attempts})


def runner_ended(session: Session, lease: Lease, *, clean: bool, max_attempts: int, status: int) -> None:
    """What a scheduler does when a runner has ended: a job it left running is requeued, or failed after its attempts.

    A clean stop (the service shuts down) counts as no attempt. Raises LeaseLost if the job moved on.
    """
    job = _locked(session, lease.job_id)
    if job.lease_epoch != lease.epoch or job.state != "running":
        raise LeaseLost(f"job {lease.job_id} moved on")
    if job.cancel_requested:
        cancelled(session, job)
    elif clean or _another_attempt(session, job, max_attempts, f"its runner ended with status {status}"):
        release(session, job)


def _next_free(session: Session) -> Job | None:
    free = or_(Job.state == "queued", and_(Job.state == "running", Job.lease_expires_at < datetime.now(UTC)))
    query = select(Job).where(free).order_by(Job.created_at, Job.id).limit(1).with_for_update(skip_locked=True)
    return session.scalars(query).first()


def _another_attempt(session: Session, job: Job, max_attempts: int, what: str) -> bool:
    """Count a failed attempt; returns whether another is left, and fails the job if not."""
    job.attempts += 1
    if job.attempts < max_attempts:
        return True
    fail(session, job, "runner_lost", f"{what} in {job.attempts} attempts in a row without progress between them; its log may tell why")
    return False


def succeed(session: Session, job: Job, result: dict[str, Any]) -> None:
    """End a job with its result, inside a fenced transaction."""
    job.result = result
    _finish(session, job, "succeeded", {})


def fail(session: Session, job: Job, reason: str, message: str, detail: str = "") -> None:
    """End a job with a typed reason, a message for its user and a traceback for its operator."""
    job.failure_reason, job.failure_message, job.failure_detail = reason, message, detail
    _finish(session, job, "failed", {"reason": reason, "message": message})


def cancelled(session: Session, job: Job) -> None:
    """End a job whose cancellation was requested."""
    _finish(session, job, "cancelled", {})


def enter_phase(session: Session, job: Job, phase: str) -> None:
    """Note which phase a running job has reached."""
    job.phase = phase
    events.append(session, job.id, "phase", {"phase": phase})


def _finish(session: Session, job: Job, state: str, data: dict[str, Any]) -> None:
    job.state, job.finished_at = state, datetime.now(UTC)
    job.lease_owner, job.lease_expires_at = None, None
    events.append(session, job.id, state, data)


def _locked(session: Session, job_id: str) -> Job:
    job = session.scalars(select(Job).where(Job.id == job_id).with_for_update()).first()
    if job is None:
        raise NotFound(f"no job {job_id!r}")
    return job
