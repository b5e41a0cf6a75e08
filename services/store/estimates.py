"""What a job was expected to take, as its events of kind `estimate` have it, and speeds that jobs of one backbone have measured."""

from typing import Any

from sqlalchemy import UnaryExpression, select
from sqlalchemy.orm import Session

from services.store.models import Job, JobEvent

_JOBS = 20


def first(session: Session, job_id: str) -> dict[str, Any] | None:
    """What a job was expected to take before it trained."""
    return _one(session, job_id, JobEvent.sequence.asc())


def last(session: Session, job_id: str) -> dict[str, Any] | None:
    """The latest estimate of a job."""
    return _one(session, job_id, JobEvent.sequence.desc())


def _one(session: Session, job_id: str, order: UnaryExpression[int]) -> dict[str, Any] | None:
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.kind == "estimate").order_by(order).limit(1)
    event = session.scalars(query).first()
    return None if event is None else event.data


def speed(session: Session, job_id: str, key: str) -> dict[str, float] | None:
    """The speed that this job, or else one of the latest of the same backbone, has measured under a key."""
    backbone = select(Job.backbone_key).where(Job.id == job_id).scalar_subquery()
    recent = select(Job.id).where(Job.backbone_key == backbone).order_by(Job.created_at.desc()).limit(_JOBS)
    for other in (job_id, *session.scalars(recent)):
        found = last(session, other)
        if found is not None and found["speed_key"] == key:
            stored: dict[str, float] = found["speed"]
            return stored
    return None
