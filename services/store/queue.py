"""The queue: which job is next, and what its user may have. What a waiting job is told of it is in `services.store.places`.

Next is the job of the highest priority; among equals one of the user who has the least running; among those the oldest. A job that
waits for its next attempt or for another job's supernet, or whose user runs as many as a user may, is passed over.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from services.settings import Settings
from services.store import claims, clock
from services.store.errors import QuotaExceeded
from services.store.models import Artifact, Job, Study


@dataclass(frozen=True, slots=True)
class Quotas:
    """What each user may have at once; None: any number."""

    running_jobs: int | None = None
    queued_jobs: int | None = None
    stored_bytes: int | None = None
    evaluators: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Quotas":
        """The quotas of a service's settings."""
        return cls(settings.user_running_jobs, settings.user_queued_jobs, settings.user_stored_bytes, settings.user_evaluators)


def next_free(session: Session, quotas: Quotas) -> Job | None:
    """The next job to run, or a running one whose lease has run out, locked; None if there is none.

    Schedulers take turns, since what is next depends on what the others are just starting.
    """
    lock(session, "claims")
    now = clock.now(session)
    running = select(Job.user_name, func.count().label("jobs")).where(leased(now)).group_by(Job.user_name).subquery()
    jobs_of_user = func.coalesce(running.c.jobs, 0)
    due = and_(Job.state == "queued", ~held_back(now))
    free = or_(due, and_(Job.state == "running", Job.lease_expires_at < now))
    query = select(Job).outerjoin(running, running.c.user_name == Job.user_name).where(free)
    if quotas.running_jobs is not None:
        query = query.where(or_(Job.state == "running", jobs_of_user < quotas.running_jobs))
    query = query.order_by(Job.priority.desc(), jobs_of_user, Job.created_at, Job.id).limit(1)
    return session.scalars(query.with_for_update(of=Job, skip_locked=True)).first()


def check_quotas(session: Session, user: str, quotas: Quotas) -> None:
    """Let a user's next submission pass, or raise QuotaExceeded. A user's submissions take turns until their transactions end.

    A paused job counts as a queued one, which it is again whenever its user likes.
    """
    if quotas.queued_jobs is None and quotas.stored_bytes is None:
        return
    lock(session, f"user {user}")
    queued = select(func.count()).select_from(Job).where(Job.user_name == user, Job.state.in_(("queued", "paused")))
    if quotas.queued_jobs is not None and (used := session.scalar(queued) or 0) >= quotas.queued_jobs:
        raise QuotaExceeded("queued_jobs", quotas.queued_jobs, used)
    if quotas.stored_bytes is not None and (used := stored_bytes(session, user)) >= quotas.stored_bytes:
        raise QuotaExceeded("stored_bytes", quotas.stored_bytes, used)


def check_study_quotas(session: Session, user: str, quotas: Quotas) -> None:
    """Let a user's next study pass, or raise QuotaExceeded: as many may wait to begin as jobs may be in the queue.

    They are counted apart from jobs, so that the trials of a study that has begun never wait for one that has not.
    """
    check_quotas(session, user, quotas)
    waiting = select(func.count()).select_from(Study).where(Study.user_name == user, Study.state == "queued")
    if quotas.queued_jobs is not None and (used := session.scalar(waiting) or 0) >= quotas.queued_jobs:
        raise QuotaExceeded("queued_studies", quotas.queued_jobs, used)


def stored_bytes(session: Session, user: str) -> int:
    """Bytes that a user's jobs keep in the artifact store; equal files count once."""
    files = select(Artifact.sha256, Artifact.size).join(Job, Job.id == Artifact.job_id).where(Job.user_name == user).distinct().subquery()
    return int(session.scalar(select(func.sum(files.c.size))) or 0)


def lock(session: Session, name: str) -> None:
    """Wait for a turn that lasts until the transaction ends. SQLite's write transactions take turns anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"glora {name}", 0))))


def leased(now: datetime) -> ColumnElement[bool]:
    """Whether a runner has a job now."""
    return and_(Job.state == "running", Job.lease_expires_at >= now)


def held_back(now: datetime) -> ColumnElement[bool]:
    """Whether a queued job waits for its next attempt, or for what another job is making."""
    return or_(and_(Job.next_try_at.is_not(None), Job.next_try_at > now), claims.awaited(now))
