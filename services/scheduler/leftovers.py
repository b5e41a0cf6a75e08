"""What trainings of supernets leave: checkpoints that nobody will go on from, and claims of jobs that are over."""

import re
from collections.abc import Iterator

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from services.store import claims, jobs
from services.store.blobs import TRAINING_NAME_LENGTH, BlobStore, training_name
from services.store.database import Database
from services.store.models import Claim, Job, Supernet

_JOB = re.compile("j[0-9a-f]{12}")


def clear(database: Database, blobs: BlobStore, job_id: str) -> None:
    """Remove the claims of a job that is over, and the checkpoints of what it claimed or trained unless another job may go on from them.

    No claim is locked while the store is asked, which may take long. Who takes a claim over just then trains in a folder of its own, and
    at worst does not find what it could have gone on from.

    Raises:
        StoreUnavailable: the claims stay, for the garbage collection.
    """
    with database.read() as session:
        claimed = {training_name(key) for key in claims.left_by(session, job_id)}
    for name in list(_of_job(blobs, job_id, claimed)):
        with database.read() as session:
            wanted = _wanted(session, name, job_id)
        if not wanted:
            blobs.remove_training_folder(name)
    with database.write() as session:
        claims.forget(session, job_id)


def sweep(database: Database, blobs: BlobStore) -> None:
    """Remove what nobody else does: checkpoints of supernets that are stored, and what jobs leave that are over, or deleted.

    Such supernets' are of a runner that hung and went on, or that ended just before it removed them; such jobs ended without a
    runner, when they were cancelled as they were paused or waited in the queue.

    Raises:
        StoreUnavailable: until the next time.
    """
    with database.read() as session:
        alive = select(Job.id).where(Job.state.in_(jobs.ALIVE))
        over = session.scalars(select(Claim.job_id).where(Claim.job_id.not_in(alive)).distinct()).all()
    for job_id in over:
        clear(database, blobs, job_id)
    for name in blobs.training_names():
        with database.read() as session:
            left = _left(session, name.partition("-")[0])
        if left:
            blobs.remove_training_folder(name)


def _left(session: Session, owner: str) -> bool:
    """Whether a folder of checkpoints is of a supernet that is stored, or of a job that is over or deleted."""
    if len(owner) == TRAINING_NAME_LENGTH:
        return session.scalar(select(Supernet.key).where(Supernet.key.startswith(owner)).limit(1)) is not None
    if _JOB.fullmatch(owner) is None:
        return False
    job = session.get(Job, owner)
    return job is None or job.state in jobs.FINAL


def _of_job(blobs: BlobStore, job_id: str, claimed: set[str]) -> Iterator[str]:
    """Folders of what the job has claimed, whoever trained there, and those that attempts of its own have made."""
    for name in blobs.training_names():
        if name.partition("-")[0] in claimed or f"-{job_id}-" in name:
            yield name


def _wanted(session: Session, name: str, job_id: str) -> bool:
    """Whether another job has claimed the supernet of a folder, or waits for it."""
    key = name.partition("-")[0]
    others = exists().where(Claim.key.startswith(key), Claim.job_id != job_id)
    waiting = exists().where(or_(Job.waiting_for == job_id, Job.awaited_key.startswith(key)))
    return bool(session.scalar(select(or_(others, waiting))))
