"""Routes of jobs: submit, list, look at, cancel; their generations, evaluations, events and artifacts."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from sqlalchemy.orm import Session

from services.api.deps import DatabaseDep, SettingsDep, UserDep
from services.api.models import (
    ArtifactList,
    ArtifactView,
    BestSoFar,
    CacheView,
    EvaluationPage,
    EvaluationView,
    Expected,
    Failure,
    GenerationPage,
    GenerationView,
    JobPage,
    JobSummary,
    JobView,
    Lineage,
    OfStudy,
    Retry,
    State,
    WaitingView,
)
from services.api.problems import Problem, ProblemDocument
from services.api.submission import submit
from services.job_data import advised
from services.job_request import JobRequest
from services.settings import Settings
from services.store import artifacts, estimates, evaluator_quota, jobs, lineage, places, search_state
from services.store.cache_report import cache_report
from services.store.cursors import cursor_of
from services.store.errors import NotFound
from services.store.models import Generation, Job
from services.store.queue import Quotas

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": ProblemDocument, "description": "No such job."}}
SENT_BEFORE: dict[int | str, dict[str, Any]] = {
    200: {"model": JobView, "description": "This request was sent with this key before: the job that it created, as it is now."}
}

Limit = Annotated[int, Query(ge=1, le=500, description="Rows per page.")]
Cursor = Annotated[str | None, Query(description="`next` of the page before.")]

Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any text of your own, such as a random UUID, without spaces; it stands for this request of yours for a day.",
    ),
]


@router.post(
    "",
    status_code=201,
    summary="Submit a job",
    responses=SENT_BEFORE
    | {
        422: {"model": ProblemDocument, "description": "A field is refused, or the key stands for another request; nothing was created."},
        429: {"model": ProblemDocument, "description": "The user has as many jobs in the queue, or stores as much, as a user may."},
        503: {"model": ProblemDocument, "description": "A first-seen backbone was not described in time, or the service is busy."},
    },
)
def create_job(
    request: JobRequest,
    response: Response,
    database: DatabaseDep,
    settings: SettingsDep,
    user: UserDep,
    idempotency_key: Key = None,
) -> JobView:
    """Check the data, backbone, space and budget, and queue the job.

    A backbone that the service has not seen before takes a few seconds to be described. Every refusal names its field.
    Sent again with the same `Idempotency-Key` and the same request, it creates nothing and answers 200 with the job.
    """
    return made(submit(database, settings, request, user, idempotency_key), response, database, settings)


def made(job_and_new: tuple[Job, bool], response: Response, database: DatabaseDep, settings: SettingsDep) -> JobView:
    """The answer to a request that makes a job: 201 and the job, or 200 where it was made before."""
    job, new = job_and_new
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return get_job(job.id, database, settings)


@router.get("", summary="List jobs")
def list_jobs(
    database: DatabaseDep,
    settings: SettingsDep,
    state: Annotated[State | None, Query(description="Only jobs in this state.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> JobPage:
    """Jobs, newest first."""
    with database.read() as session:
        try:
            rows = jobs.page(session, state=state, before=cursor, limit=limit)
        except NotFound as error:
            raise Problem(422, "request-invalid", f"{cursor!r} is not a cursor that this list has given out", field="cursor") from error
        waiting = _places(session, settings, rows)
    items = [JobSummary.model_validate(row).model_copy(update={"waiting": waiting.get(row.id)}) for row in rows]
    return JobPage(items=items, next=cursor_of(rows[-1]) if len(rows) == limit else None)


@router.get("/{job_id}", summary="Look at a job", responses=UNKNOWN)
def get_job(job_id: str, database: DatabaseDep, settings: SettingsDep) -> JobView:
    """State, progress and, once it is over, result or failure of a job."""
    with database.read() as session:
        job = jobs.get(session, job_id)
        share = evaluator_quota.allowed(session, job_id, settings.user_evaluators)
        return view(session, job, _places(session, settings, [job]).get(job_id), share)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    responses=UNKNOWN | {409: {"model": ProblemDocument, "description": "The job is over."}},
)
def cancel_job(job_id: str, database: DatabaseDep, settings: SettingsDep) -> JobView:
    """Cancel a queued or paused job at once; a running one ends within seconds and frees the cluster. What it has stored stays."""
    with database.write() as session:
        jobs.request_cancel(session, job_id)
    return get_job(job_id, database, settings)


@router.get("/{job_id}/generations", summary="Generations of a job", responses=UNKNOWN)
def list_generations(job_id: str, database: DatabaseDep, cursor: Cursor = None, limit: Limit = 100) -> GenerationPage:
    """Finished generations, in order."""
    (after,) = _cursor(cursor, 1)
    with database.read() as session:
        jobs.get(session, job_id)
        rows = search_state.generations(session, job_id, after, limit)
    following = str(rows[-1].number) if len(rows) == limit else None
    return GenerationPage(items=[GenerationView.model_validate(row) for row in rows], next=following)


@router.get("/{job_id}/evaluations", summary="Evaluated candidates of a job", responses=UNKNOWN)
def list_evaluations(
    job_id: str,
    database: DatabaseDep,
    generation: Annotated[int | None, Query(ge=0, le=10**9, description="Only this generation.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> EvaluationPage:
    """Every candidate of every finished generation with its fitness, by generation and position."""
    after = _cursor(cursor, 2)
    with database.read() as session:
        rows = search_state.evaluated_candidates(session, jobs.get(session, job_id), (after[0], after[1]), limit, generation)
    items = [
        EvaluationView(
            generation=candidate.generation,
            position=candidate.position,
            operator=candidate.operator,
            parents=candidate.parents,
            hash=candidate.config_hash,
            config=candidate.config,
            parameters=candidate.parameters,
            accuracy=evaluation.accuracy,
            macro_accuracy=evaluation.macro_accuracy,
            fitness=evaluation.fitness,
            loss=evaluation.loss,
        )
        for candidate, evaluation in rows
    ]
    return EvaluationPage(items=items, next=f"{items[-1].generation}-{items[-1].position}" if len(items) == limit else None)


@router.get("/{job_id}/artifacts", summary="Artifacts of a job", responses=UNKNOWN)
def list_artifacts(job_id: str, database: DatabaseDep) -> ArtifactList:
    """Files that the job has made; the merged checkpoint is there once it has succeeded."""
    with database.read() as session:
        jobs.get(session, job_id)
        return ArtifactList(items=[ArtifactView.model_validate(row) for row in artifacts.of_job(session, job_id)])


def _places(session: Session, settings: Settings, rows: Sequence[Job]) -> dict[str, WaitingView]:
    """The places in the queue of those that are queued, by id."""
    return {job_id: WaitingView.model_validate(place) for job_id, place in places.waiting(session, Quotas.of(settings), rows).items()}


def view(session: Session, job: Job, waiting: WaitingView | None = None, evaluators: int | None = None) -> JobView:
    """A job as the API shows it; `evaluators` is what it may hold by its user's quota."""
    last = search_state.last_generation(session, job.id)
    failed, told = job.failure_reason is not None, estimates.last(session, job.id)
    origin, request = lineage.origin_of(job), JobRequest.model_validate(job.request)
    return JobView(
        id=job.id,
        name=job.name,
        user=job.user_name,
        priority=job.priority,
        waiting=waiting,
        evaluators=evaluators,
        state=job.state,
        phase=job.phase,
        request=request,
        data=advised(request, job.data),
        supernet=job.supernet_key,
        generations_done=last.number + 1 if last else 0,
        best=_best(last) if last else None,
        expected=Expected.model_validate(told) if told else None,
        cache=CacheView.model_validate(cache_report(session, job)),
        result=job.result,
        failure=Failure(reason=job.failure_reason or "", message=job.failure_message or "", detail=job.failure_detail) if failed else None,
        cancel_requested=job.cancel_requested,
        cancel_reason=job.cancel_reason,
        study=None if job.study_id is None else OfStudy(id=job.study_id, trial=job.study_trial or 0),
        pause_requested=job.pause_requested,
        waiting_for=job.waiting_for,
        lineage=None if origin is None else Lineage.model_validate({"job": origin.job, "action": origin.action}),
        children=[Lineage.model_validate({"job": child, "action": action}) for child, action in lineage.children(session, job.id)],
        attempts=job.attempts,
        retry=Retry.model_validate(job.retry) if job.retry and job.attempts and job.state not in jobs.FINAL else None,
        next_try_at=job.next_try_at,
        run_seconds=round(job.run_seconds, 1),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _best(last: Generation) -> BestSoFar:
    return BestSoFar(
        accuracy=last.best_accuracy,
        fitness=last.best_fitness,
        loss=last.best_loss,
        parameters=last.best_parameters,
        generation=last.number,
    )


def _cursor(cursor: str | None, parts: int) -> tuple[int, ...]:
    if cursor is None:
        return (-1,) * parts
    numbers = cursor.split("-")
    if len(numbers) != parts or not all(re.fullmatch("[0-9]{1,9}", n) for n in numbers):
        raise Problem(422, "request-invalid", f"{cursor[:40]!r} is not a cursor that this list has given out", field="cursor")
    return tuple(int(n) for n in numbers)
