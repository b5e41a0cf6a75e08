"""What each page shows, read from the store as frozen dataclasses, so that templates have nothing to decide."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.dashboard import results, wording
from services.dashboard.actions import Action, Kin, actions, kin
from services.dashboard.charts import ChartData, chart_data
from services.dashboard.progress import Progress, Step, progress, steps
from services.dashboard.results import Entry, File, LayerRow, Winner
from services.job_data import advised
from services.job_request import JobRequest
from services.store import artifacts, estimates, events, jobs, places
from services.store.cache_report import CacheReport, cache_report
from services.store.cursors import cursor_of
from services.store.models import Backbone, Generation, Job, JobEvent
from services.store.places import Waiting
from services.store.queue import Quotas

PAGE = 50
LOG = 200


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in the list."""

    id: str
    name: str
    state: str
    backbone: str
    budget: int
    progress: Progress
    best_accuracy: float | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Filter:
    """A state that the list can be narrowed to (None: all), and how many jobs are in it."""

    state: str | None
    count: int


@dataclass(frozen=True, slots=True)
class JobList:
    """One page of the list; `older` is the cursor of the next page, None on the last."""

    rows: tuple[JobRow, ...]
    state: str | None
    filters: tuple[Filter, ...]
    older: str | None


@dataclass(frozen=True, slots=True)
class LogLine:
    """An event in words."""

    sequence: int
    title: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed: a headline, the typed reason, the message for its user, the traceback for its operator."""

    headline: str
    reason: str
    message: str
    detail: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt that a job waits for or makes after a failed one: its number, of how many, when, and why the last one failed."""

    attempt: int
    of: int
    next_try_at: datetime | None
    why: str


@dataclass(frozen=True, slots=True)
class Status:
    """The part of a job's page that changes while it runs."""

    id: str
    state: str
    cancel_requested: bool
    pause_requested: bool
    actions: tuple[Action, ...]
    kin: Kin
    cache: CacheReport
    steps: tuple[Step, ...]
    progress: Progress
    retry: Retry | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    expected: str | None
    metric: str
    finalists: tuple[Entry, ...]
    log: tuple[LogLine, ...]
    log_total: int


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class and its number of examples in each split."""

    name: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """What the job's data set holds: `images` or `texts`, names of its splits, their sizes in words, examples per class, warnings."""

    kind: str
    splits: tuple[str, ...]
    sizes: str
    classes: tuple[ClassRow, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobPage:
    """A job's whole page. `sequence` is the last event that all of it is at least as new as."""

    status: Status
    sequence: int
    name: str
    user: str
    request: JobRequest
    architecture: str
    finals: str
    data: Data
    failure: Failure | None
    winner: Winner | None
    extended: str
    baselines: tuple[Entry, ...]
    layers: tuple[LayerRow, ...]
    files: tuple[File, ...]
    folder: str
    charts: ChartData

    @property
    def primary(self) -> File | None:
        """The merged checkpoint."""
        return next((file for file in self.files if file.kind == "merged"), None)


def job_list(session: Session, quotas: Quotas, state: str | None = None, before: str | None = None) -> JobList:
    """A page of jobs, newest first. An unknown state lists all. Raises NotFound where `before` is no cursor."""
    state = state if state in jobs.STATES else None
    found = jobs.page(session, state=state, before=before, limit=PAGE + 1)
    shown = found[:PAGE]
    best = _best_in_search(session, [job.id for job in shown])
    counts = {row.state: row.jobs for row in session.execute(select(Job.state, func.count().label("jobs")).group_by(Job.state))}
    filters = (Filter(None, sum(counts.values())), *(Filter(name, counts.get(name, 0)) for name in jobs.STATES))
    waiting = places.waiting(session, quotas, shown)
    rows = tuple(_row(session, job, best.get(job.id), waiting.get(job.id)) for job in shown)
    return JobList(rows, state, filters, cursor_of(shown[-1]) if len(found) > PAGE else None)


def job_page(session: Session, quotas: Quotas, job_id: str) -> JobPage:
    """A job's page. Raises NotFound."""
    # Read first: whatever is committed meanwhile is then told again by the event stream, and never missed.
    sequence = _last_sequence(session, job_id)
    job = jobs.get(session, job_id)
    request = JobRequest.model_validate(job.request)
    info = session.get_one(Backbone, job.backbone_key).info or {}
    result = job.result
    return JobPage(
        status=_status(session, quotas, job, request),
        sequence=sequence,
        name=job.name,
        user=job.user_name,
        request=request,
        architecture=info.get("architecture", request.backbone.name),
        finals=wording.finals(request.finals.settings(request.training)),
        data=_data(advised(request, job.data)),
        failure=_failure(job) if job.state == "failed" else None,
        winner=results.winner(result) if result else None,
        extended=wording.extended(result.get("made_from")) if result else "",
        baselines=results.baselines(result) if result else (),
        layers=results.layer_rows(results.winners_code(result), info.get("layers", [])) if result else (),
        files=results.files(artifacts.of_job(session, job_id)),
        folder=results.folder_name(job.name, job_id),
        charts=chart_data(session, job),
    )


def job_status(session: Session, quotas: Quotas, job_id: str) -> Status:
    """The changing part of a job's page. Raises NotFound."""
    job = jobs.get(session, job_id)
    return _status(session, quotas, job, JobRequest.model_validate(job.request))


def _status(session: Session, quotas: Quotas, job: Job, request: JobRequest) -> Status:
    query = select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.sequence.desc()).limit(LOG)
    log = tuple(LogLine(e.sequence, wording.event_title(e.kind), wording.event_text(e.kind, e.data), e.at) for e in session.scalars(query))
    return Status(
        id=job.id,
        state=job.state,
        cancel_requested=job.cancel_requested and job.state == "running",
        pause_requested=job.pause_requested,
        actions=actions(session, job),
        kin=kin(session, job),
        cache=cache_report(session, job),
        steps=steps(job),
        progress=progress(session, job, request, places.waiting(session, quotas, [job]).get(job.id)),
        retry=_retry(job),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        seconds=_seconds(job),
        expected=_expected(session, job),
        metric=request.search.metric,
        finalists=results.finalists(job.result)
        if job.result
        else results.finalists_so_far(events.of_kind(session, job.id, "finalist"), request.search.metric),
        log=log,
        log_total=_last_sequence(session, job.id),
    )


def _expected(session: Session, job: Job) -> str | None:
    """How long the whole job is expected to take, or was before it trained, in words; None if that is not known yet."""
    told = (estimates.first if job.finished_at else estimates.last)(session, job.id)
    return None if told is None else str(told["text"])


def _row(session: Session, job: Job, best_in_search: float | None, place: Waiting | None) -> JobRow:
    request = JobRequest.model_validate(job.request)
    return JobRow(
        id=job.id,
        name=job.name,
        state=job.state,
        backbone=request.backbone.name,
        budget=request.budget,
        progress=progress(session, job, request, place),
        best_accuracy=job.result["winner"]["val_accuracy"] if job.result else best_in_search,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        seconds=_seconds(job),
    )


def _best_in_search(session: Session, job_ids: list[str]) -> dict[str, float]:
    """Accuracy of the best candidate as of each job's last generation; by another metric it may have been higher before."""
    last = select(Generation.job_id, func.max(Generation.number).label("number")).where(Generation.job_id.in_(job_ids))
    numbers = last.group_by(Generation.job_id).subquery()
    query = select(Generation.job_id, Generation.best_accuracy).join(
        numbers, (Generation.job_id == numbers.c.job_id) & (Generation.number == numbers.c.number)
    )
    return {row.job_id: row.best_accuracy for row in session.execute(query)}


def _last_sequence(session: Session, job_id: str) -> int:
    return session.scalar(select(func.max(JobEvent.sequence)).where(JobEvent.job_id == job_id)) or 0


def _failure(job: Job) -> Failure:
    code = job.failure_reason or "internal_error"
    return Failure(wording.reason(code), code, job.failure_message or "", job.failure_detail or "")


def _retry(job: Job) -> Retry | None:
    if not job.retry or not job.attempts or job.state in jobs.FINAL:
        return None
    why = f"{wording.reason(job.retry['reason'])}: {job.retry['message']}"
    return Retry(job.retry["attempt"], job.retry["of"], job.next_try_at, why)


def _seconds(job: Job) -> float | None:
    """How long a job has run or did run; None if it never started."""
    if job.started_at is None:
        return None
    return ((job.finished_at or datetime.now(UTC)) - job.started_at).total_seconds()


def _data(data: dict[str, Any]) -> Data:
    """A job's data set from its stored facts; jobs of before have fewer of them."""
    counts = data.get("counts", {})
    rows = zip(data.get("classes", []), zip(*counts.values(), strict=True), strict=True) if counts else ()
    classes = tuple(ClassRow(name, per_split) for name, per_split in rows)
    return Data(str(data.get("kind", "images")), tuple(counts), _splits(data), classes, tuple(data.get("warnings", [])))


def _splits(data: dict[str, Any]) -> str:
    """The sizes of a data set's splits in words; empty if they were not noted."""
    splits = data.get("splits")
    if not isinstance(splits, dict):
        return ""
    return ", ".join(f"{name} {wording.thousands(count)}" for name, count in splits.items() if isinstance(count, int))
