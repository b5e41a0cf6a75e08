"""Who computes what is not stored yet, so that no two jobs compute the same thing at once.

A claim holds as long as its job runs under the lease epoch that made it; one of a dead runner is taken over by whoever asks
next. It is given up in the transaction that stores what was computed, so whoever takes a claim looks once more, in the same
transaction, whether the result is there by now.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, and_, delete, exists, select, update
from sqlalchemy.orm import Session, aliased

from services.store import clock
from services.store.database import insert_new
from services.store.models import Claim, Job

if TYPE_CHECKING:
    from services.store.jobs import Lease

_IN_LIMIT = 500


def evaluation_key(supernet_key: str, split: str, protocol: str, metric: str, config_hash: str) -> str:
    """The key under which an evaluation is claimed; a supernet's is its own."""
    return hashlib.sha256("|".join((supernet_key, split, protocol, metric, config_hash)).encode()).hexdigest()


def take(session: Session, lease: "Lease", keys: Iterable[str]) -> set[str]:
    """Claim what nobody alive has claimed; returns the keys that are the lease's now, those it had before included."""
    wanted, now = sorted(set(keys)), clock.now(session)
    # in the order of keys, so that two that claim the same at once wait for each other in turn and never in a circle
    insert_new(session, [Claim(key=key, job_id=lease.job_id, epoch=lease.epoch, claimed_at=now) for key in wanted])
    for chunk in _chunks(wanted):
        void = update(Claim).where(Claim.key.in_(chunk), ~_alive(now)).values(job_id=lease.job_id, epoch=lease.epoch, claimed_at=now)
        session.execute(void.execution_options(synchronize_session=False))
    mine = and_(Claim.job_id == lease.job_id, Claim.epoch == lease.epoch)
    return {key for chunk in _chunks(wanted) for key in session.scalars(select(Claim.key).where(Claim.key.in_(chunk), mine))}


def drop(session: Session, lease: "Lease", keys: Collection[str]) -> None:
    """Give up claims, in the transaction that stores what they were for."""
    for chunk in _chunks(sorted(keys)):
        mine = and_(Claim.key.in_(chunk), Claim.job_id == lease.job_id, Claim.epoch == lease.epoch)
        session.execute(delete(Claim).where(mine).execution_options(synchronize_session=False))


def holder(session: Session, key: str) -> str | None:
    """The job that is computing something; None if nobody alive is."""
    return session.scalar(select(Claim.job_id).where(Claim.key == key, _alive(clock.now(session))))


def makers(session: Session, now: datetime) -> dict[str, str]:
    """What jobs in the queue wait for and others are making: the makers by its key."""
    waiting = select(Job.awaited_key).where(Job.awaited_key.is_not(None), Job.state == "queued")
    query = select(Claim.key, Claim.job_id).where(Claim.key.in_(waiting), _alive(now))
    return dict(session.execute(query).tuples().all())


def awaited(now: datetime) -> ColumnElement[bool]:
    """Whether what a job waits for is still being made by another, for a question about jobs."""
    maker = aliased(Job)
    leased = (maker.state == "running", maker.lease_epoch == Claim.epoch, maker.lease_expires_at > now)
    making = select(Claim.key).join(maker, maker.id == Claim.job_id).where(Claim.key == Job.awaited_key, *leased)
    return and_(Job.awaited_key.is_not(None), making.correlate(Job).exists())


def left_by(session: Session, job_id: str) -> list[str]:
    """Keys that a job has claimed, under whatever lease."""
    return list(session.scalars(select(Claim.key).where(Claim.job_id == job_id)))


def forget(session: Session, job_id: str) -> None:
    """Remove all claims of a job that is over."""
    session.execute(delete(Claim).where(Claim.job_id == job_id).execution_options(synchronize_session=False))


def _alive(now: datetime) -> ColumnElement[bool]:
    """Whether a claim's runner still has its lease."""
    leased = and_(Job.id == Claim.job_id, Job.state == "running", Job.lease_epoch == Claim.epoch, Job.lease_expires_at > now)
    return exists().where(leased).correlate(Claim)


def _chunks(keys: Sequence[str]) -> list[Sequence[str]]:
    return [keys[start : start + _IN_LIMIT] for start in range(0, len(keys), _IN_LIMIT)]
