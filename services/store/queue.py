"""The queue: which job is next, what its user may have, and why a job waits.

Next is the job of the highest priority; among equals one of the user who has the least running; among those the oldest. A job that
waits for its next attempt, or whose user runs as many as a user may, is passed over.
"""

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, or_, select
from sqlalchemy.orm import Session

from services.settings import Settings
from services.store import clock, schedulers
from services.store.errors import QuotaExceeded
from services.store.models import Artifact, Job


@dataclass(frozen=True, slots=True)
class Quotas:
    """What each user may have at once; None: any number."""

    running_jobs: int | None = None
    queued_jobs: int | None = None
    stored_bytes: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Quotas":
        """The quotas of a service's settings."""
        return cls(settings.user_running_jobs, settings.user_queued_jobs, settings.user_stored_bytes)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Where a queued job stands, and what it waits for.

    Args:
        position: 1 for the job that is started next, if nothing changes; those that are held back come last.
        of: jobs in the queue.
        reason: `retry`, `quota`, `no_scheduler`, `jobs_ahead`, `schedulers_busy` or `next`.
        message: the same for people.
    """

    position: int
    of: int
    reason: str
    message: str


def next_free(session: Session, quotas: Quotas) -> Job | None:
    """The next job to run, or a running one whose lease has run out, locked; None if there is none.

    Schedulers take turns, since what is next depends on what the others are just starting.
    """
    lock(session, "claims")
    now = clock.now(session)
    running = select(Job.user_name, func.count().label("jobs")).where(_alive(now)).group_by(Job.user_name).subquery()
    jobs_of_user = func.coalesce(running.c.jobs, 0)
    due = and_(Job.state == "queued", or_(Job.next_try_at.is_(None), Job.next_try_at <= now))
    free = or_(due, and_(Job.state == "running", Job.lease_expires_at < now))
    query = select(Job).outerjoin(running, running.c.user_name == Job.user_name).where(free)
    if quotas.running_jobs is not None:
        query = query.where(or_(Job.state == "running", jobs_of_user < quotas.running_jobs))
    query = query.order_by(Job.priority.desc(), jobs_of_user, Job.created_at, Job.id).limit(1)
    return session.scalars(query.with_for_update(of=Job, skip_locked=True)).first()


def check_quotas(session: Session, user: str, quotas: Quotas) -> None:
    """Let a user's next submission pass, or raise QuotaExceeded. A user's submissions take turns until their transactions end."""
    if quotas.queued_jobs is None and quotas.stored_bytes is None:
        return
    lock(session, f"user {user}")
    queued = select(func.count()).select_from(Job).where(Job.user_name == user, Job.state == "queued")
    if quotas.queued_jobs is not None and (used := session.scalar(queued) or 0) >= quotas.queued_jobs:
        raise QuotaExceeded("queued_jobs", quotas.queued_jobs, used)
    if quotas.stored_bytes is not None and (used := stored_bytes(session, user)) >= quotas.stored_bytes:
        raise QuotaExceeded("stored_bytes", quotas.stored_bytes, used)


def stored_bytes(session: Session, user: str) -> int:
    """Bytes that a user's jobs keep in the artifact store; equal files count once."""
    files = select(Artifact.sha256, Artifact.size).join(Job, Job.id == Artifact.job_id).where(Job.user_name == user).distinct().subquery()
    return int(session.scalar(select(func.sum(files.c.size))) or 0)


def waiting(session: Session, quotas: Quotas) -> dict[str, Waiting]:
    """Every queued job's place, by its id."""
    now = clock.now(session)
    columns = (Job.id, Job.user_name, Job.priority, Job.created_at, Job.next_try_at, Job.retry)
    queued = session.execute(select(*columns).where(Job.state == "queued").order_by(Job.priority.desc(), Job.created_at, Job.id)).all()
    if not queued:
        return {}
    counts = session.execute(select(Job.user_name, func.count()).where(_alive(now)).group_by(Job.user_name)).all()
    running = {user: int(count) for user, count in counts}
    blocked = _blocked(session, sum(running.values()))
    limit = quotas.running_jobs
    full = {user for user, count in running.items() if limit is not None and count >= limit}
    found = {}
    for position, row in enumerate(_in_order(queued, running, limit, now), 1):
        reason, message = _why(row, position, now, running.get(row.user_name, 0) if row.user_name in full else None, blocked)
        found[row.id] = Waiting(position, len(queued), reason, message)
    return found


def lock(session: Session, name: str) -> None:
    """Wait for a turn that lasts until the transaction ends. SQLite's write transactions take turns anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"glora {name}", 0))))


def _alive(now: datetime) -> ColumnElement[bool]:
    return and_(Job.state == "running", Job.lease_expires_at >= now)


def _in_order(queued: Sequence[Row[Any]], running: Mapping[str, int], limit: int | None, now: datetime) -> list[Row[Any]]:
    """The jobs in the order in which `next_free` would give them, were none to end; those that it would pass over last."""
    counts, lines, held = defaultdict(int, running), defaultdict[str, list[Row[Any]]](list), list[Row[Any]]()
    for row in reversed(queued):
        (held if _later(row, now) else lines[row.user_name]).append(row)
    held.reverse()
    heads: list[tuple[int, int, datetime, str, str]] = []

    def offer(user: str) -> None:
        if lines[user] and (limit is None or counts[user] < limit):
            row = lines[user][-1]
            heapq.heappush(heads, (-row.priority, counts[user], row.created_at, row.id, user))

    for user in list(lines):
        offer(user)
    order = []
    while heads:
        user = heapq.heappop(heads)[-1]
        order.append(lines[user].pop())
        counts[user] += 1
        offer(user)
    over = sorted((row for line in lines.values() for row in line), key=lambda row: (-row.priority, row.created_at, row.id))
    return [*order, *over, *held]


def _later(row: Row[Any], now: datetime) -> bool:
    return row.next_try_at is not None and row.next_try_at > now


def _why(row: Row[Any], position: int, now: datetime, full: int | None, blocked: tuple[str, str] | None) -> tuple[str, str]:
    if _later(row, now):
        seconds = max(1, round((row.next_try_at - now).total_seconds()))
        return "retry", f"tried again in {seconds} s, after {(row.retry or {}).get('reason', 'a failed attempt')}"
    if full is not None:
        return "quota", f"{row.user_name} runs {_jobs(full)}, as many as a user may"
    if blocked is not None and blocked[0] == "no_scheduler":
        return blocked
    if position > 1:
        return "jobs_ahead", f"{_jobs(position - 1)} ahead of it"
    return blocked or ("next", "a scheduler takes it in a moment")


def _blocked(session: Session, running: int) -> tuple[str, str] | None:
    """Why no scheduler takes the very next job now, if so."""
    count, slots = schedulers.alive(session)
    if count == 0:
        return "no_scheduler", "no scheduler is running"
    if running >= slots:
        return "schedulers_busy", f"the schedulers run {_jobs(running)}, as many as they may"
    return None


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"
