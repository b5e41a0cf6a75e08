"""Routes of what can be done with a job that is there: pause and resume it, make others from it, delete it."""

from typing import Any

from fastapi import APIRouter, Response

from services.api import derived
from services.api.deps import DatabaseDep, SettingsDep, UserDep
from services.api.derived import CloneRequest, ExtendRequest, ForkRequest
from services.api.jobs import SENT_BEFORE, UNKNOWN, Key, get_job, made
from services.api.models import JobView
from services.api.problems import ProblemDocument
from services.store import lifecycle

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
_REFUSED: dict[int | str, dict[str, Any]] = UNKNOWN | {
    409: {"model": ProblemDocument, "description": "Not in the job's state; `accepted` names those in which it is."}
}

_INVALID: dict[int | str, dict[str, Any]] = {422: {"model": ProblemDocument, "description": "A field is refused; nothing was created."}}
_QUOTA: dict[int | str, dict[str, Any]] = {
    429: {"model": ProblemDocument, "description": "The user has as many jobs in the queue, or stores as much, as a user may."}
}
_UNDESCRIBED: dict[int | str, dict[str, Any]] = {
    503: {"model": ProblemDocument, "description": "A first-seen backbone was not described in time, or the service is busy."}
}


@router.post("/{job_id}/pause", status_code=202, summary="Pause a job", responses=_REFUSED)
def pause_job(job_id: str, database: DatabaseDep, settings: SettingsDep) -> JobView:
    """Pause a queued job at once; a running one finishes the batch, epoch or trials in hand, stores them and frees the cluster.

    Pausing again changes nothing.
    """
    with database.write() as session:
        lifecycle.request_pause(session, job_id)
    return get_job(job_id, database, settings)


@router.post("/{job_id}/resume", status_code=202, summary="Resume a paused job", responses=_REFUSED)
def resume_job(job_id: str, database: DatabaseDep, settings: SettingsDep) -> JobView:
    """Put a paused job back into the queue; it goes on bit for bit as if it had not been paused. Withdraws a pending pause."""
    with database.write() as session:
        lifecycle.resume(session, job_id)
    return get_job(job_id, database, settings)


@router.post(
    "/{job_id}/extend", status_code=201, summary="Go on with a finished search", responses=SENT_BEFORE | _REFUSED | _INVALID | _QUOTA
)
def extend_job(
    job_id: str,
    asked: ExtendRequest,
    response: Response,
    database: DatabaseDep,
    settings: SettingsDep,
    user: UserDep,
    idempotency_key: Key = None,
) -> JobView:
    """Queue a job that goes on from all generations of a succeeded one, with finals and an export of its own.

    Its populations are those that a longer search would have had from the start. The finished job stays as it is.
    """
    return made(derived.extend(database, settings, user, job_id, asked, idempotency_key), response, database, settings)


@router.post(
    "/{job_id}/fork",
    status_code=201,
    summary="Search the same supernet in another way",
    responses=SENT_BEFORE | _REFUSED | _INVALID | _QUOTA,
)
def fork_job(
    job_id: str,
    asked: ForkRequest,
    response: Response,
    database: DatabaseDep,
    settings: SettingsDep,
    user: UserDep,
    idempotency_key: Key = None,
) -> JobView:
    """Queue a job over a job's trained supernet, with another budget, strategy, metric or seed; it starts searching at once.

    Evaluations by the same metric are shared. The job may be in any state, once it has its supernet.
    """
    return made(derived.fork(database, settings, user, job_id, asked, idempotency_key), response, database, settings)


@router.post(
    "/{job_id}/clone",
    status_code=201,
    summary="Submit a job once more, with changes",
    responses=SENT_BEFORE | UNKNOWN | _INVALID | _QUOTA | _UNDESCRIBED,
)
def clone_job(
    job_id: str,
    asked: CloneRequest,
    response: Response,
    database: DatabaseDep,
    settings: SettingsDep,
    user: UserDep,
    idempotency_key: Key = None,
) -> JobView:
    """Queue a job by the request of another, whatever its state, with changes; it is checked like a new submission."""
    return made(derived.clone(database, settings, user, job_id, asked, idempotency_key), response, database, settings)


@router.delete("/{job_id}", status_code=204, summary="Delete a job", responses=_REFUSED)
def delete_job(job_id: str, database: DatabaseDep) -> None:
    """Delete a job that is over: its events, generations and files. Supernets and evaluations stay, for other jobs.

    The files' bytes go with the next `glora admin gc`.
    """
    with database.write() as session:
        lifecycle.delete(session, job_id)
