"""What people ask of a job after it was submitted, apart from cancelling it: pause, resume, delete.

A queued job is paused at once. A running one is asked to: its runner finishes what it has in hand, stores it, and gives the
cluster back (`jobs.paused`).
"""

from sqlalchemy import delete as sql_delete
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from services.store import events, jobs, studies
from services.store.database import Database
from services.store.errors import WrongState
from services.store.models import Artifact, Candidate, Generation, Job, JobEvent, Supernet

PAUSABLE = ("queued", "running")


def request_pause(session: Session, job_id: str) -> Job:
    """Pause a queued job at once, ask the runner of a running one to; a paused one stays as it is. Raises NotFound, WrongState."""
    job = jobs.locked(session, job_id)
    if job.state in jobs.FINAL:
        raise WrongState(f"job {job_id} has {job.state} already; only a queued or running job can be paused", job.state, PAUSABLE)
    if job.cancel_requested:
        raise WrongState(f"job {job_id} is being cancelled; only a queued or running job can be paused", job.state, PAUSABLE)
    if job.state == "queued":
        jobs.paused(session, job)
    elif job.state == "running" and not job.pause_requested:
        job.pause_requested = True
        events.append(session, job_id, "pause_requested", {})
    return job


def resume(session: Session, job_id: str) -> Job:
    """Put a paused job back into the queue, or withdraw a pause that is not reached yet. Raises NotFound, WrongState."""
    job = jobs.locked(session, job_id)
    if job.state != "paused" and not job.pause_requested:
        raise WrongState(f"job {job_id} is {job.state}; only a paused job can be resumed", job.state, ("paused",))
    if job.state == "paused":
        job.state, job.next_try_at = "queued", None
    job.pause_requested = False
    events.append(session, job_id, "resume_requested", {})
    return job


def delete(session: Session, job_id: str) -> None:
    """Delete a job that is over: its events, generations, candidates and files' rows. Raises NotFound, WrongState.

    Supernets and evaluations are everybody's and stay; so do rows of files that hold supernets, as nobody's. The bytes of the
    other files go with the next garbage collection.
    """
    job = jobs.locked(session, job_id)
    if job.state not in jobs.FINAL:
        raise WrongState(f"job {job_id} is {job.state}; only a job that is over can be deleted", job.state, tuple(sorted(jobs.FINAL)))
    studies.refuse_if_needed(session, job)
    shared = select(Supernet.artifact_id)
    session.execute(update(Artifact).where(Artifact.job_id == job_id, Artifact.id.in_(shared)).values(job_id=None))
    for model in (Artifact, Candidate, Generation, JobEvent):  # in this order: candidates refer to generations
        session.execute(sql_delete(model).where(model.job_id == job_id))
    session.delete(job)


def pause_requested(database: Database, job_id: str) -> bool:
    """Whether a running job is asked to pause."""
    with database.read() as session:
        return bool(session.scalar(select(Job.pause_requested).where(Job.id == job_id)))
