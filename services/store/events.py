"""The append-only log of what happened to a job, numbered without gaps; what event streams read."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.store.models import JobEvent


def append(session: Session, job_id: str, kind: str, data: dict[str, Any]) -> JobEvent:
    """Add an event inside the caller's write transaction; it becomes visible with what it reports."""
    last = session.scalar(select(func.max(JobEvent.sequence)).where(JobEvent.job_id == job_id)) or 0
    event = JobEvent(job_id=job_id, sequence=last + 1, kind=kind, data=data, at=datetime.now(UTC))
    session.add(event)
    session.flush()
    return event


def of_kind(session: Session, job_id: str, kind: str) -> list[JobEvent]:
    """A job's events of one kind, oldest first."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.kind == kind).order_by(JobEvent.sequence)
    return list(session.scalars(query))


def after(session: Session, job_id: str, sequence: int, limit: int = 500) -> list[JobEvent]:
    """Events of a job numbered above `sequence`, oldest first."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.sequence > sequence).order_by(JobEvent.sequence)
    return list(session.scalars(query.limit(limit)))
