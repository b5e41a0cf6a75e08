"""What the evaluation cache has saved a job: candidates asked for, answered from what was stored, and evaluated for it."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.store.models import Generation, Job


@dataclass(frozen=True, slots=True)
class CacheReport:
    """Of a job's own finished generations; those that an extended job took over are counted apart.

    Attributes:
        asked: candidates whose fitness the search asked for.
        from_cache: those whose fitness was stored, by another job or an earlier generation, or that were in the population twice.
        evaluated: those that were evaluated for this job, each once, restarts included.
        inherited: candidates of generations taken over from the parent.
    """

    asked: int
    from_cache: int
    evaluated: int
    inherited: int


def cache_report(session: Session, job: Job) -> CacheReport:
    """A job's report; it grows with every finished generation."""
    own, evaluated, cached = Generation.number >= job.inherited, Generation.evaluated, Generation.from_cache
    query = select(func.sum(evaluated).filter(own), func.sum(cached).filter(own), func.sum(evaluated + cached).filter(~own))
    fresh, known, before = (int(total or 0) for total in session.execute(query.where(Generation.job_id == job.id)).one())
    return CacheReport(fresh + known, known, fresh, before)
