"""What the pages of studies show, read from the store as frozen dataclasses, so that templates have nothing to decide."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from glora_core.metrics import OWN, SIGNS, own_value
from services.dashboard import wording
from services.dashboard.charts import LINE_POINTS, thin
from services.dashboard.progress import Progress
from services.store import studies, study_outcomes, study_progress
from services.store.cursors import cursor_of
from services.store.models import Study
from services.store.study_outcomes import OPEN, Outcome
from services.store.study_progress import FITNESS, PROBE, Report
from services.study_request import EarlyStop, Range, StudyRequest, Swept

PAGE = 50
CURVES = 40
"""Trials that a chart of curves shows; of more, the best."""


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study in the list."""

    id: str
    name: str
    state: str
    swept: tuple[str, ...]
    progress: Progress
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class StudyList:
    """One page of the list; `older` is the cursor of the next page, None on the last."""

    rows: tuple[StudyRow, ...]
    first: bool
    older: str | None


@dataclass(frozen=True, slots=True)
class StudyPage:
    """A study's whole page.

    Attributes:
        settled: the trials' states with how many there are of each, in words.
        data: what its charts are drawn from, as plain JSON.
    """

    row: StudyRow
    user: str
    metric: str
    share: bool
    settled: str
    failure: tuple[str, str] | None
    attempts: int
    trials: tuple[Outcome, ...]
    best: Outcome | None
    over: bool
    sweep: tuple[tuple[str, str], ...]
    early_stop: str
    concurrency: int
    samples: int
    seed: int
    base: dict[str, Any]
    data: dict[str, Any]


def study_list(session: Session, before: str | None = None) -> StudyList:
    """A page of studies, newest first. Raises NotFound where `before` is no cursor."""
    found = studies.page(session, before=before, limit=PAGE + 1)
    shown = found[:PAGE]
    counts = study_outcomes.counts(session, [study.id for study in shown])
    rows = tuple(_row(study, counts[study.id]) for study in shown)
    return StudyList(rows, before is None, cursor_of(shown[-1]) if len(found) > PAGE else None)


def study_page(session: Session, study_id: str) -> StudyPage:
    """A study's page. Raises NotFound."""
    study = studies.get(session, study_id)
    request, found = StudyRequest.model_validate(study.request), study_outcomes.outcomes(session, study)
    counted, best = Counter(trial.state for trial in found), study_outcomes.best_of(study, found)
    return StudyPage(
        row=_row(study, counted),
        user=study.user_name,
        metric=study.metric,
        share=study.metric in OWN,
        settled=", ".join(f"{counted[state]:,} {state}" for state in study_outcomes.STATES if counted[state]),
        failure=(study.failure_reason, study.failure_message or "") if study.failure_reason else None,
        attempts=study.attempts,
        trials=tuple(found),
        best=found[best - 1] if best else None,
        over=study.state not in studies.ALIVE,
        sweep=tuple((name, _swept(asked)) for name, asked in request.sweep.items()),
        early_stop=_early_stop(request.early_stop),
        concurrency=request.concurrency,
        samples=request.samples,
        seed=request.seed,
        base=request.base,
        data=_data(session, study, found, best),
    )


def _row(study: Study, counted: Counter[str]) -> StudyRow:
    total, done = counted.total(), sum(count for state, count in counted.items() if state not in OPEN)
    active = counted["running"]
    text = f"{done:,} of {total:,} trials done" + (f", {active:,} running" if active else "")
    seconds = None if study.started_at is None else ((study.finished_at or datetime.now(UTC)) - study.started_at).total_seconds()
    return StudyRow(
        id=study.id,
        name=study.name,
        state=study.state,
        swept=tuple(study.request["sweep"]),
        progress=Progress(text, done / total if study.state in studies.ALIVE else None),
        created_at=study.created_at,
        started_at=study.started_at,
        finished_at=study.finished_at,
        seconds=seconds,
    )


def _swept(asked: Swept) -> str:
    """What a setting is swept over, in words."""
    if isinstance(asked, Range):
        return f"{asked.low:g} to {asked.high:g}, drawn{' in the logarithm' if asked.log else ''}"
    return ", ".join(wording.value(value) for value in asked.values)


def _early_stop(asked: EarlyStop) -> str:
    if asked.rule == "none":
        return "none"
    return f"successive halving: 1/{asked.reduction_factor:g} goes on, for the first time after {asked.grace_epochs:,} epochs"


def _data(session: Session, study: Study, found: Sequence[Outcome], best: int | None) -> dict[str, Any]:
    told = study_progress.reports(session, study.id)
    sign = SIGNS.get(study.metric, 1)
    order = sorted(found, key=lambda trial: (trial.best is None, -sign * (trial.best or 0.0)))
    shown = {trial.number for trial in order[:CURVES]}
    names = ("number", "settings", "state", "best", "parameters", "stopped_at")
    return {
        "id": study.id,
        "settled": study.state not in studies.ALIVE and not any(trial.state in OPEN for trial in found),
        "state": study.state,
        "metric": study.metric,
        "sign": sign,
        "share": study.metric in OWN,
        "swept": list(study.request["sweep"]),
        "best": best,
        "trials": [{name: fact for name, fact in asdict(trial).items() if name in names} for trial in found],
        "fitness": _curves(told, FITNESS, shown, lambda report: [report.step + 1, own_value(study.metric, report.value)]),
        "probes": _curves(told, PROBE, shown, lambda report: [report.step, report.value]),
    }


def _curves(told: Sequence[Report], kind: str, shown: set[int], point: Any) -> dict[int, list[list[float]]]:
    """Each trial's points of one kind, by its number, thinned."""
    found: dict[int, list[list[float]]] = {}
    for report in sorted(told, key=lambda report: (report.trial, report.step)):
        if report.kind == kind and report.trial in shown:
            found.setdefault(report.trial, []).append(point(report))
    return {trial: thin(points, LINE_POINTS) for trial, points in found.items()}
