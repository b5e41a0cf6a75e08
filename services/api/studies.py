"""Routes of studies: submit, list, look at with all trials side by side, cancel, delete."""

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from services.api.deps import DatabaseDep, SettingsDep, UserDep
from services.api.jobs import Cursor, Key, Limit
from services.api.problems import Problem, ProblemDocument
from services.api.study_models import ReportList, ReportView, StudyFailure, StudyPage, StudyState, StudySummary, StudyView, TrialView
from services.api.study_submission import submit_study
from services.store import studies, study_outcomes, study_progress
from services.store.cursors import cursor_of
from services.store.errors import NotFound
from services.store.models import Study
from services.study_request import StudyRequest

router = APIRouter(prefix="/v1/studies", tags=["studies"])
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": ProblemDocument, "description": "No such study."}}


@router.post(
    "",
    status_code=201,
    summary="Submit a study",
    responses={
        200: {"model": StudyView, "description": "This request was sent with this key before: the study that it created, as it is now."},
        422: {"model": ProblemDocument, "description": "A field, or a trial, is refused; nothing was created."},
        429: {"model": ProblemDocument, "description": "The user has as many jobs in the queue, or stores as much, as a user may."},
        503: {"model": ProblemDocument, "description": "A first-seen backbone was not described in time, or the service is busy."},
    },
)
def create_study(
    request: StudyRequest,
    response: Response,
    database: DatabaseDep,
    settings: SettingsDep,
    user: UserDep,
    idempotency_key: Key = None,
) -> StudyView:
    """Draw the trials, check every one like a job, and queue the study. Its trials become jobs of the same user, a few at a time.

    Sent again with the same `Idempotency-Key` and the same request, it creates nothing and answers 200 with the study.
    """
    study, new = submit_study(database, settings, request, user, idempotency_key)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/studies/{study.id}"
    return get_study(study.id, database)


@router.get("", summary="List studies")
def list_studies(
    database: DatabaseDep,
    state: Annotated[StudyState | None, Query(description="Only studies in this state.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> StudyPage:
    """Studies, newest first."""
    with database.read() as session:
        try:
            rows = studies.page(session, state=state, before=cursor, limit=limit)
        except NotFound as error:
            raise Problem(422, "request-invalid", f"{cursor!r} is not a cursor that this list has given out", field="cursor") from error
        counted = study_outcomes.counts(session, [row.id for row in rows])
    items = [StudySummary(**_summary(row, counted[row.id])) for row in rows]
    return StudyPage(items=items, next=cursor_of(rows[-1]) if len(rows) == limit else None)


@router.get("/{study_id}", summary="Look at a study", responses=UNKNOWN)
def get_study(study_id: str, database: DatabaseDep) -> StudyView:
    """State and progress of a study, and what has become of each trial."""
    with database.read() as session:
        return _view(session, studies.get(session, study_id))


@router.get("/{study_id}/reports", summary="Reports of a study's trials", responses=UNKNOWN)
def list_reports(study_id: str, database: DatabaseDep) -> ReportList:
    """What each trial reached along the way: probes of supernets in training, and the best fitness by generation."""
    with database.read() as session:
        studies.get(session, study_id)
        return ReportList(items=[ReportView.model_validate(report) for report in study_progress.reports(session, study_id)])


@router.post(
    "/{study_id}/cancel",
    status_code=202,
    summary="Cancel a study",
    responses=UNKNOWN | {409: {"model": ProblemDocument, "description": "The study is over."}},
)
def cancel_study(study_id: str, database: DatabaseDep) -> StudyView:
    """End the study and cancel its jobs that are not over; those that run end within seconds. What they have stored stays."""
    with database.write() as session:
        studies.cancel(session, study_id)
    return get_study(study_id, database)


@router.delete(
    "/{study_id}",
    status_code=204,
    summary="Delete a study",
    responses=UNKNOWN | {409: {"model": ProblemDocument, "description": "The study is not over."}},
)
def delete_study(study_id: str, database: DatabaseDep) -> None:
    """Delete a study that is over. Its jobs stay, by themselves."""
    with database.write() as session:
        studies.delete(session, study_id)


def _view(session: Session, study: Study) -> StudyView:
    found = study_outcomes.outcomes(session, study)
    why = None
    if study.failure_reason is not None:
        why = StudyFailure(reason=study.failure_reason, message=study.failure_message or "")
    return StudyView(
        **_summary(study, Counter(trial.state for trial in found)),
        request=StudyRequest.model_validate(study.request),
        metric=study.metric,
        best=study_outcomes.best_of(study, found),
        trials=[TrialView.model_validate(trial) for trial in found],
        failure=why,
        attempts=study.attempts,
    )


def _summary(study: Study, counted: Counter[str]) -> dict[str, Any]:
    """The fields of a summary; trials are counted by state."""
    states = {state: counted[state] for state in study_outcomes.STATES}
    done = sum(count for state, count in states.items() if state not in study_outcomes.OPEN)
    return {
        "id": study.id,
        "name": study.name,
        "user": study.user_name,
        "state": study.state,
        "swept": list(study.request["sweep"]),
        "counts": {"all": counted.total(), "done": done} | states,
        "created_at": study.created_at,
        "started_at": study.started_at,
        "finished_at": study.finished_at,
    }
