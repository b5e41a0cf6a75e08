"""What runners have printed, kept with their jobs: the end of each of the last few attempts' logs.

A scheduler stores the log of the runner that it has started, under the epoch of that runner's lease, also after the job is over;
one whose job has been claimed anew since writes nothing.
"""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from services.store import clock
from services.store.errors import LeaseLost
from services.store.jobs import Lease
from services.store.models import Job, JobLog

MAX_BYTES = 64 * 1024
"""Of one attempt's log; of a longer one the end is kept."""

KEPT = 5
"""Attempts whose logs are kept."""


def keep(session: Session, lease: Lease, text: str, size: int) -> None:
    """Store the end of a log in place of what is stored of the same attempt.

    Args:
        text: at most MAX_BYTES.
        size: bytes of the whole log so far.

    Raises:
        LeaseLost: the job has been claimed anew.
    """
    epoch = session.scalar(select(Job.lease_epoch).where(Job.id == lease.job_id).with_for_update())
    if epoch != lease.epoch:
        raise LeaseLost(f"job {lease.job_id}: epoch {lease.epoch} is over (now {epoch})")
    session.merge(JobLog(job_id=lease.job_id, epoch=lease.epoch, text=text, size=size, updated_at=clock.calendar(session)))
    session.execute(delete(JobLog).where(JobLog.job_id == lease.job_id, JobLog.epoch <= lease.epoch - KEPT))


def of_job(session: Session, job_id: str) -> list[JobLog]:
    """The kept logs of a job, in the order of its attempts."""
    return list(session.scalars(select(JobLog).where(JobLog.job_id == job_id).order_by(JobLog.epoch)))
