"""What a job that is over leaves of supernets it has not finished: checkpoints that nobody waits for, and its claims on them."""

from sqlalchemy import exists, select

from services.store import claims
from services.store.blobs import BlobStore, training_name
from services.store.database import Database
from services.store.models import Job


def clear(database: Database, blobs: BlobStore, job_id: str) -> None:
    """Remove a job's claims, and the checkpoints of what it claimed unless another job waits to go on from them.

    The checkpoints go while the claims are locked, so that nobody takes a claim over and has its folder removed.

    Raises:
        StoreUnavailable: the claims stay, for the garbage collection.
    """
    with database.write() as session:
        names = {f"{training_name(key)}-supernet" for key in claims.left_by(session, job_id)}
        awaited = session.scalar(select(exists().where(Job.waiting_for == job_id)))
        for name in names.intersection(blobs.training_names()) if names and not awaited else ():
            blobs.remove_training_folder(name)
        claims.forget(session, job_id)
