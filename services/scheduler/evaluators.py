"""The job's evaluator pool: what its evaluators load, what each holds of the cluster, and how many there may be beside other jobs."""

import logging
from dataclasses import dataclass

import ray
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor

from services.cluster.evaluator import evaluators
from services.cluster.pool import EvaluatorPool
from services.cluster.resources import evaluator_limit
from services.scheduler.context import RunContext
from services.scheduler.prepare import Prepared
from services.scheduler.supernets import supernet_settings
from services.store import jobs
from services.store.database import Database

log = logging.getLogger("glora.evaluators")


def open_pool(context: RunContext, prepared: Prepared, state: dict[str, Tensor]) -> EvaluatorPool:
    """A pool over the job's supernet; training examples are left out of what evaluators are sent."""
    share, asked = context.evaluator_share, context.request.search
    start = evaluators(ray.put(prepared.local.for_evaluation()), ray.put(state), supernet_settings(context), share, asked.precision)
    return EvaluatorPool(start, evaluator_limit(asked.evaluators, share, JobsRunning(context.database)))


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
