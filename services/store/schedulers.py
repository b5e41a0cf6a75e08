"""Which schedulers are at work, and how many jobs each may run; what the queue tells its users goes by it, and nothing else does."""

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from services.store import clock
from services.store.models import Scheduler


def beat(session: Session, name: str, slots: int, seconds: float) -> None:
    """Note that a scheduler is at work for so many seconds more; those that have not been heard of for long are forgotten."""
    now = clock.now(session)
    session.execute(delete(Scheduler).where(Scheduler.expires_at < now - timedelta(hours=1)))
    session.merge(Scheduler(name=name, slots=slots, expires_at=now + timedelta(seconds=seconds)))


def leave(session: Session, name: str) -> None:
    """Note that a scheduler has ended."""
    session.execute(delete(Scheduler).where(Scheduler.name == name))


def alive(session: Session) -> tuple[int, int]:
    """How many schedulers are at work, and how many jobs they may run in all."""
    at_work = Scheduler.expires_at >= clock.now(session)
    count, slots = session.execute(select(func.count(), func.sum(Scheduler.slots)).where(at_work)).one()
    return int(count), int(slots or 0)
