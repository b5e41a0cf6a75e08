"""Who drives a study: the lease under which one driver owns it, claimed, renewed, fenced and given back as a job's is.

States: `queued → running → succeeded | failed | cancelled`. A running study whose lease has run out by the database's clock is free
for another scheduler; every claim raises the epoch, and every write of a driver carries it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from services.store import clock
from services.store.database import Database
from services.store.errors import LeaseLost, NotFound
from services.store.models import Study
from services.store.retries import RetryRules


@dataclass(frozen=True, slots=True)
class StudyLease:
    """A driver's claim on a study: valid while the study's row carries this epoch."""

    study_id: str
    owner: str
    epoch: int


def claim(session: Session, owner: str, lease_seconds: float, rules: RetryRules) -> StudyLease | None:
    """Take the oldest study that nobody drives; None if there is none. A lease that has run out counts as a failed attempt."""
    while (study := _next_free(session)) is not None:
        if study.state == "queued":
            break
        attempt_failed(session, study, rules, "runner_lost", "its driver's lease ran out")
    else:
        return None
    study.state, study.lease_owner, study.next_try_at = "running", owner, None
    study.lease_epoch += 1
    study.lease_expires_at = clock.now(session) + timedelta(seconds=lease_seconds)
    study.started_at = study.started_at or clock.calendar(session)
    return StudyLease(study.id, owner, study.lease_epoch)


@contextmanager
def fenced(database: Database, lease: StudyLease) -> Iterator[tuple[Session, Study]]:
    """A write transaction that only the holder of the lease gets. Raises LeaseLost, with nothing written, otherwise."""
    with database.write() as session:
        yield session, held(session, lease)


def held(session: Session, lease: StudyLease) -> Study:
    """The study of a lease, locked. Raises LeaseLost if another drives it, it is over or deleted, or the lease has run out."""
    try:
        study = locked(session, lease.study_id)
    except NotFound as gone:
        raise LeaseLost(f"study {lease.study_id} was deleted") from gone
    if (study.state, study.lease_owner, study.lease_epoch) != ("running", lease.owner, lease.epoch):
        raise LeaseLost(f"study {study.id}: epoch {lease.epoch} is over (now {study.lease_epoch}, {study.state})")
    if study.lease_expires_at is None or study.lease_expires_at < clock.now(session):
        raise LeaseLost(f"study {study.id}: the lease of epoch {lease.epoch} has run out")
    return study


def renew(database: Database, lease: StudyLease, lease_seconds: float, expires_at: datetime | None = None) -> datetime | None:
    """Extend the lease; returns its new expiry. Raises LeaseLost.

    Args:
        expires_at: as a scheduler knows it that keeps the lease while the driver starts; if the driver has renewed it since, it is
            left alone and None returned.
    """
    with fenced(database, lease) as (session, study):
        if expires_at is not None and study.lease_expires_at != expires_at:
            return None
        study.lease_expires_at = clock.now(session) + timedelta(seconds=lease_seconds)
        return study.lease_expires_at


def ended(session: Session, lease: StudyLease, *, clean: bool, rules: RetryRules, status: int) -> None:
    """What a scheduler does when a driver has ended: a study that it left running waits for the next one. Raises LeaseLost.

    A clean stop (the service shuts down) counts as no attempt.
    """
    study = held(session, lease)
    if clean:
        _release(study)
    else:
        attempt_failed(session, study, rules, "runner_lost", f"its driver ended with status {status}")


def attempt_failed(session: Session, study: Study, rules: RetryRules, reason: str, message: str) -> None:
    """Count a failed attempt at driving a study: it waits for the next one, or has failed if none is left. Its jobs stay as they are."""
    now = clock.now(session)
    study.retry, again = rules.after(study.retry, study.attempts, reason, now)
    study.attempts += 1
    if not again:
        finish(session, study, "failed", reason, message)
        return
    study.next_try_at = now + timedelta(seconds=rules.wait_seconds(study.id, study.attempts))
    _release(study)


def finish(session: Session, study: Study, state: str, reason: str | None = None, message: str | None = None) -> None:
    """End a study."""
    study.state, study.failure_reason, study.failure_message = state, reason, message
    study.finished_at = clock.calendar(session)
    study.lease_owner, study.lease_expires_at = None, None


def locked(session: Session, study_id: str) -> Study:
    """A study by its id, kept from other writers until the transaction ends. Raises NotFound."""
    study = session.scalars(select(Study).where(Study.id == study_id).with_for_update()).first()
    if study is None:
        raise NotFound(f"no study {study_id!r}")
    return study


def _release(study: Study) -> None:
    study.state, study.lease_owner, study.lease_expires_at = "queued", None, None


def _next_free(session: Session) -> Study | None:
    now = clock.now(session)
    due = and_(Study.state == "queued", or_(Study.next_try_at.is_(None), Study.next_try_at <= now))
    free = or_(due, and_(Study.state == "running", Study.lease_expires_at < now))
    query = select(Study).where(free).order_by(Study.created_at, Study.id).limit(1)
    return session.scalars(query.with_for_update(skip_locked=True)).first()
