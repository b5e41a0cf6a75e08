"""How many evaluators a job may hold of those that its user may have: an even share among the user's jobs that search just now."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.store.models import Job


def allowed(session: Session, job_id: str, quota: int | None) -> int | None:
    """The share of a job, at least 1; the oldest of the user's searching jobs have what does not divide evenly.

    Args:
        quota: evaluators that all of one user's jobs may hold together.

    Returns:
        None where there is no quota, or the job does not search now.
    """
    if quota is None:
        return None
    user = select(Job.user_name).where(Job.id == job_id).scalar_subquery()
    query = select(Job.id).where(Job.state == "running", Job.phase == "search", Job.user_name == user)
    searching = list(session.scalars(query.order_by(Job.created_at, Job.id)))
    if job_id not in searching:
        return None
    even, rest = divmod(quota, len(searching))
    return max(1, even + (searching.index(job_id) < rest))
