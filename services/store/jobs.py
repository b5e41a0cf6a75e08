"""Jobs: creation, listing, the state machine, and the lease under which one runner owns a job.

States: `queued → running → succeeded | failed | cancelled`, and `paused` beside the queue (see `services.store.lifecycle`).
A running job whose lease has expired may be claimed again. Every claim raises the lease's epoch, and every write of a runner or of
its scheduler carries it (`fenced`), so whoever has lost the job cannot write. A lease that has run out by the database's clock is
lost, whether or not another has taken over.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, literal, select, tuple_
from sqlalchemy.orm import Session

from services.settings import DEFAULT_USER
from services.store import claims, clock, events, queue
from services.store.cursors import place
from services.store.database import Database
from services.store.errors import LeaseLost, NotFound, WrongState
from services.store.models import Job, Supernet, UtcDateTime
from services.store.queue import Quotas
from services.store.retries import RetryRules

UNLIMITED = Quotas()

FINAL = frozenset({"succeeded", "failed", "cancelled"})
STATES = ("queued", "running", "paused", *sorted(FINAL))
ALIVE = ("queued", "running", "paused")


@dataclass(frozen=True, slots=True)
class Lease:
    """A runner's claim on a job: valid while the job's row carries this epoch."""

    job_id: str
    owner: str
    epoch: int


def create(
    session: Session, *, name: str, request: dict[str, Any], backbone_key: str, data: dict[str, Any], user: str = DEFAULT_USER
) -> Job:
    """A new queued job of a user."""
    job = Job(
        id=f"j{secrets.token_hex(6)}",
        name=name,
        user_name=user,
        priority=int(request.get("priority", 0)),
        state="queued",
        request=request,
        backbone_key=backbone_key,
        data=data,
        cancel_requested=False,
        attempts=0,
        run_seconds=0.0,
        lease_epoch=0,
        created_at=clock.calendar(session),
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
    """Jobs, newest first, at most `limit`; `before` is the cursor of the last job of the page before. Raises NotFound."""
    query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Job.state == state)
    if before is not None:
        created_at, job_id = place(before)
        # as one comparison of pairs the index is entered at the cursor; spelt out with OR it is walked from the newest job on
        query = query.where(tuple_(Job.created_at, Job.id) < tuple_(literal(created_at, UtcDateTime), literal(job_id)))
    return list(session.scalars(query))


def count_running(session: Session) -> int:
    """How many jobs run now."""
    return session.scalar(select(func.count()).select_from(Job).where(Job.state == "running")) or 0


def request_cancel(session: Session, job_id: str, reason: str | None = None) -> Job:
    """Cancel a queued or paused job at once; ask the runner of a running one to end. Raises NotFound, or WrongState if it is over.

    Args:
        reason: why, for people, where that is not their own wish.
    """
    job = locked(session, job_id)
    if job.state in FINAL:
        raise WrongState(f"job {job_id} has {job.state} already; only a queued, running or paused job can be cancelled", job.state, ALIVE)
    job.cancel_reason = job.cancel_reason or reason
    if job.state != "running":
        cancelled(session, job)
    elif not job.cancel_requested:
        job.cancel_requested = True
        events.append(session, job_id, "cancel_requested", {})
    return job


def claim(session: Session, owner: str, lease_seconds: float, rules: RetryRules, quotas: Quotas = UNLIMITED) -> Lease | None:
    """Take the queue's next job; None if there is none.

    A running job whose lease has run out counts as a failed attempt: it goes back into the queue, is failed if it has had all
    its attempts, or is cancelled or paused if that was requested. One that waited for what another job has given up is the one to
    make it from now on, so that others which wait for the same go on waiting.
    """
    while (job := queue.next_free(session, quotas)) is not None:
        if job.cancel_requested:
            cancelled(session, job)
        elif job.pause_requested:
            paused(session, job)
        elif job.state == "queued":
            break
        else:
            attempt_failed(session, job, rules, "runner_lost", "its runner's lease ran out", since=job.lease_expires_at)
    else:
        return None
    job.state, job.lease_owner, job.next_try_at = "running", owner, None
    job.lease_epoch += 1
    job.lease_expires_at = clock.now(session) + timedelta(seconds=lease_seconds)
    events.append(session, job.id, "resumed" if job.started_at else "started", {"epoch": job.lease_epoch})
    job.started_at = job.started_at or clock.calendar(session)
    lease = Lease(job.id, owner, job.lease_epoch)
    if job.awaited_key is not None and session.get(Supernet, job.awaited_key) is None:
        session.flush()
        claims.take(session, lease, [job.awaited_key])
    job.waiting_for = job.awaited_key = None
    return lease


@contextmanager
def fenced(database: Database, lease: Lease) -> Iterator[tuple[Session, Job]]:
    """A write transaction that only the holder of the lease gets. Raises LeaseLost, with nothing written, otherwise."""
    with database.write() as session:
        yield session, held(session, lease)


def held(session: Session, lease: Lease) -> Job:
    """The job of a lease, locked in a write transaction.

    Raises:
        LeaseLost: another owns it, it is over or deleted, or the lease has run out.
    """
    try:
        job = locked(session, lease.job_id)
    except NotFound as gone:
        raise LeaseLost(f"job {lease.job_id} was deleted") from gone
    if job.lease_epoch != lease.epoch or job.lease_owner != lease.owner or job.state != "running":
        raise LeaseLost(f"job {lease.job_id}: epoch {lease.epoch} is over (now {job.lease_epoch}, {job.state})")
    if job.lease_expires_at is None or job.lease_expires_at < clock.now(session):
        raise LeaseLost(f"job {lease.job_id}: the lease of epoch {lease.epoch} has run out")
    return job


def renew(database: Database, lease: Lease, lease_seconds: float) -> bool:
    """Extend the lease; returns whether a cancellation is requested. Fails a job that has run for as long as it may.

    Raises:
        LeaseLost: the job belongs to another runner now, or is over.
    """
    with fenced(database, lease) as (session, job):
        _count_time(session, job, lease_seconds)
        job.lease_expires_at = clock.now(session) + timedelta(seconds=lease_seconds)
        limit = job.request.get("max_hours")
        overran = limit is not None and job.run_seconds > limit * 3600
        if overran and not job.cancel_requested:
            fail(session, job, "time_exceeded", f"it has run for the {limit:g} hours that its request allows")
        cancel = job.cancel_requested
    if overran and not cancel:
        raise LeaseLost(f"job {lease.job_id} has run for as long as it may")
    return cancel


def keep_starting(database: Database, lease: Lease, lease_seconds: float, expires_at: datetime) -> datetime | None:
    """Extend the lease of a runner that has not renewed it yet; returns the new expiry, None if the runner renews it by now.

    Args:
        expires_at: the lease's expiry as the scheduler knows it.

    Raises:
        LeaseLost: the job moved on.
    """
    with fenced(database, lease) as (session, job):
        if job.lease_expires_at != expires_at:
            return None
        _count_time(session, job, lease_seconds)
        job.lease_expires_at = clock.now(session) + timedelta(seconds=lease_seconds)
        return job.lease_expires_at


def release(session: Session, job: Job, **why: Any) -> None:
    """Put a running job back into the queue."""
    _let_go(job, "queued")
    events.append(session, job.id, "requeued", {"attempts": job.attempts} | why)


def give_way(session: Session, job: Job, key: str, maker: str) -> None:
    """Put a running job back into the queue until another has made what it needs, or has given that up; no attempt is counted.

    Args:
        key: of the claim that the maker has.
    """
    _let_go(job, "queued")
    job.waiting_for, job.awaited_key = maker, key
    events.append(session, job.id, "requeued", {"attempts": job.attempts, "supernet": key, "job": maker})


def paused(session: Session, job: Job) -> None:
    """Take a job out of queue or hands until it is resumed; nothing of it holds the cluster any more."""
    _let_go(job, "paused")
    job.pause_requested = False
    events.append(session, job.id, "paused", {})


def runner_ended(session: Session, lease: Lease, *, clean: bool, rules: RetryRules, status: int) -> None:
    """What a scheduler does when a runner has ended: a job it left running is requeued, or failed after its attempts.

    A clean stop (the service shuts down) counts as no attempt. Raises LeaseLost if the job moved on.
    """
    job = held(session, lease)
    if clean or job.cancel_requested or job.pause_requested:
        stopped(session, job)
    else:
        attempt_failed(session, job, rules, "runner_lost", f"its runner ended with status {status}")


def stopped(session: Session, job: Job) -> None:
    """What becomes of a running job that nobody runs any more: cancelled or paused if that was asked for, else back into the queue."""
    if job.cancel_requested:
        cancelled(session, job)
    elif job.pause_requested:
        paused(session, job)
    else:
        release(session, job)


def attempt_failed(
    session: Session, job: Job, rules: RetryRules, reason: str, message: str, detail: str = "", since: datetime | None = None
) -> bool:
    """Count a failed attempt of a running job: it waits for the next one, or has failed if none is left; returns whether one is.

    Args:
        since: when it failed; now if absent.
    """
    now = since or clock.now(session)
    told, again = rules.after(job.retry, job.attempts, reason, now)
    job.attempts += 1
    if not again:
        row = f", in {job.attempts} attempts in a row without progress between them" if job.attempts > 1 else ""
        fail(session, job, reason, message + row, detail)
        return False
    wait = rules.wait_seconds(job.id, job.attempts)
    job.next_try_at = now + timedelta(seconds=wait)
    job.retry = {"reason": reason, "message": message, **told}
    release(session, job, reason=reason, message=message, wait_seconds=round(wait, 1))
    return True


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
    _finish(session, job, "cancelled", {"message": job.cancel_reason} if job.cancel_reason else {})


def enter_phase(session: Session, job: Job, phase: str) -> None:
    """Note which phase a running job has reached."""
    job.phase = phase
    events.append(session, job.id, "phase", {"phase": phase})


def _count_time(session: Session, job: Job, lease_seconds: float) -> None:
    """Add the time since the lease was last renewed to what the job has run; time in the queue, or without a runner, does not count."""
    assert job.lease_expires_at is not None
    since = clock.now(session) - job.lease_expires_at + timedelta(seconds=lease_seconds)
    job.run_seconds += max(0.0, since.total_seconds())


def _finish(session: Session, job: Job, state: str, data: dict[str, Any]) -> None:
    _let_go(job, state)
    job.finished_at, job.pause_requested = clock.calendar(session), False
    events.append(session, job.id, state, data)


def _let_go(job: Job, state: str) -> None:
    """Leave a job in a state in which no runner has it, and it waits for nobody."""
    job.state, job.lease_owner, job.lease_expires_at, job.waiting_for, job.awaited_key = state, None, None, None, None


def locked(session: Session, job_id: str) -> Job:
    """A job by its id, kept from other writers until the transaction ends. Raises NotFound."""
    job = session.scalars(select(Job).where(Job.id == job_id).with_for_update()).first()
    if job is None:
        raise NotFound(f"no job {job_id!r}")
    return job
