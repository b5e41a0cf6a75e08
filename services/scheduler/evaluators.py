"""The job's evaluator pool: what its evaluators load, what each holds of the cluster, and how many there may be beside other jobs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor

from services.cluster.evaluator import evaluators
from services.cluster.pool import EvaluatorPool
from services.cluster.resources import EvaluatorLimit
from services.scheduler.context import RunContext
from services.scheduler.prepare import Prepared
from services.scheduler.supernets import supernet_settings
from services.store import evaluator_quota, jobs
from services.store.database import Database

log = logging.getLogger("glora.evaluators")


@contextmanager
def open_pool(context: RunContext, prepared: Prepared, state: dict[str, Tensor]) -> Iterator[EvaluatorPool]:
    """A pool over the job's supernet while the block runs; training examples are left out of what evaluators are sent."""
    share, asked = context.evaluator_share, context.request.search
    start = evaluators(ray.put(prepared.local.for_evaluation()), ray.put(state), supernet_settings(context), share, asked.precision)
    quota = UsersShare(context.database, context.lease.job_id, context.settings.user_evaluators)
    limit = EvaluatorLimit(asked.evaluators, share, JobsRunning(context.database), quota)
    pool = EvaluatorPool(start, limit)
    try:
        yield pool
    finally:
        pool.close()
        limit.close()


@dataclass
class JobsRunning:
    """Asks SQL how many jobs run now; while SQL is away, the last answer holds, since a pool can do without a new one."""

    database: Database
    last: int = 1

    def __call__(self) -> int:
        """The number of running jobs."""
        try:
            with self.database.read() as session:
                self.last = jobs.count_running(session)
        except SQLAlchemyError:
            log.warning("running jobs not counted", exc_info=True)
        return self.last


@dataclass
class UsersShare:
    """Asks SQL how many evaluators a job may have by its user's quota; while SQL is away, the last answer holds.

    Args:
        quota: of all jobs of one user together; None: there is none.
    """

    database: Database
    job_id: str
    quota: int | None
    last: int | None = 1

    def __call__(self) -> int | None:
        """The job's share; None: any number."""
        if self.quota is None:
            return None
        try:
            with self.database.read() as session:
                share = evaluator_quota.allowed(session, self.job_id, self.quota)
        except SQLAlchemyError:
            log.warning("the user's searching jobs not counted", exc_info=True)
            return self.last
        if share != self.last:
            log.info("job %s may hold %s of its user's %d evaluators", self.job_id, share, self.quota)
        self.last = share
        return share
