"""What a study's trials have come to, side by side: read from their jobs, whatever state these are in."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from glora_core.metrics import UNMEASURED, own_value
from services.store import studies
from services.store.models import Generation, Job, JobEvent, Study, StudyTrial

STATES = ("waiting", "queued", "running", "paused", "succeeded", "stopped", "failed", "cancelled", "deleted")
OPEN = ("waiting", "queued", "running", "paused")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trial and what has become of it.

    Attributes:
        settings: the swept settings, by their dotted names.
        state: its job's, or `waiting` for a job, `stopped` early by the study, `deleted`.
        stopped_at: epoch after which it was stopped.
        stopped_why: the reason, for people.
        best: the metric's own value on val: of the result, or of the search so far.
        parameters: of the subnet that reached that.
        searched: the best of the search alone, by the metric; comparable where trials share a supernet.
        asked, from_cache, evaluated: candidates of its search.
        epochs: of supernet training that its job has done itself.
        seconds: that its job has run.
    """

    number: int
    settings: dict[str, Any]
    state: str
    job: str | None
    phase: str | None
    stopped_at: int | None
    stopped_why: str | None
    failure: str | None
    best: float | None
    val_accuracy: float | None
    searched: float | None
    parameters: int | None
    test_accuracy: float | None
    generations: int
    asked: int
    from_cache: int
    evaluated: int
    epochs: int
    seconds: float


def outcomes(session: Session, study: Study) -> list[Outcome]:
    """All trials of a study, in order."""
    rows = {job.id: job for job in session.scalars(select(Job).where(Job.study_id == study.id))}
    searches, epochs = _searches(session, study.id), _epochs(session, rows)
    return [
        _outcome(study, trial, rows.get(trial.job_id or ""), searches.get(trial.job_id or ""), epochs.get(trial.job_id or "", 0))
        for trial in studies.trials(session, study.id)
    ]


def counts(session: Session, study_ids: Sequence[str]) -> dict[str, Counter[str]]:
    """How many trials of each study are in which state, by the studies' ids."""
    query = (
        select(StudyTrial.study_id, StudyTrial.job_id, StudyTrial.stopped_at, Study.state, Job.state.label("job_state"))
        .join(Study, Study.id == StudyTrial.study_id)
        .outerjoin(Job, Job.id == StudyTrial.job_id)
        .where(StudyTrial.study_id.in_(study_ids))
    )
    found = {study_id: Counter[str]() for study_id in study_ids}
    for study_id, job_id, stopped_at, state, job_state in session.execute(query):
        found[study_id][_state(state, job_id, stopped_at, job_state)] += 1
    return found


def best_of(study: Study, found: Iterable[Outcome]) -> int | None:
    """The number of the succeeded trial of the best value on val; the first of equals, None if none has succeeded."""
    sign = own_value(study.metric, 1.0)
    done = [trial for trial in found if trial.state == "succeeded" and trial.best is not None]
    return max(done, key=lambda trial: (sign * (trial.best or 0.0), -trial.number)).number if done else None


def _state(study: str, job_id: str | None, stopped_at: int | None, job: str | None) -> str:
    if job_id is None:
        return "waiting" if study in studies.ALIVE else "cancelled"
    if job is None:
        return "deleted"
    return "stopped" if stopped_at is not None and job in ("cancelled", "running") else job


def _outcome(study: Study, trial: StudyTrial, job: Job | None, last: Any, epochs: int) -> Outcome:
    winner = job.result["winner"] if job is not None and job.result else {}
    searched = None if last is None or last.fitness == UNMEASURED else own_value(study.metric, last.fitness)
    return Outcome(
        number=trial.number,
        settings=trial.settings,
        state=_state(study.state, trial.job_id, trial.stopped_at, job.state if job else None),
        job=trial.job_id if job else None,
        phase=job.phase if job is not None and job.state == "running" else None,
        stopped_at=trial.stopped_at,
        stopped_why=trial.stopped_why,
        failure=f"{job.failure_reason}: {job.failure_message}" if job is not None and job.failure_reason else None,
        best=_reached(winner, study.metric) if winner else searched,
        val_accuracy=winner["val_accuracy"] if winner else last.accuracy if last else None,
        searched=searched,
        parameters=winner["parameters"] if winner else last.parameters if last else None,
        test_accuracy=winner.get("test_accuracy"),
        generations=last.number + 1 if last else 0,
        asked=last.evaluated + last.from_cache if last else 0,
        from_cache=last.from_cache if last else 0,
        evaluated=last.evaluated if last else 0,
        epochs=epochs,
        seconds=round(job.run_seconds, 1) if job else 0.0,
    )


def _reached(winner: dict[str, Any], metric: str) -> float | None:
    value: float | None = winner["val_accuracy"] if metric == "accuracy" else winner.get("val_metric")
    return value


def _searches(session: Session, study_id: str) -> dict[str, Any]:
    """Of each job of a study that has finished generations: the best as of the last one, and candidates over all of them."""
    totals = (
        select(
            Generation.job_id,
            func.max(Generation.number).label("number"),
            func.sum(Generation.evaluated).label("evaluated"),
            func.sum(Generation.from_cache).label("from_cache"),
        )
        .where(Generation.job_id.in_(select(Job.id).where(Job.study_id == study_id)))
        .group_by(Generation.job_id)
        .subquery()
    )
    best = (Generation.best_fitness, Generation.best_accuracy, Generation.best_parameters)
    query = select(
        totals.c.job_id,
        totals.c.number,
        totals.c.evaluated,
        totals.c.from_cache,
        *(column.label(name) for column, name in zip(best, ("fitness", "accuracy", "parameters"), strict=True)),
    ).join(Generation, (Generation.job_id == totals.c.job_id) & (Generation.number == totals.c.number))
    return {row.job_id: row for row in session.execute(query)}


def _epochs(session: Session, rows: dict[str, Job]) -> dict[str, int]:
    """The last epoch that each job has reported; none of one that found its supernet."""
    trained = [job_id for job_id, job in rows.items() if job.phase is not None]
    last = (
        select(JobEvent.job_id, func.max(JobEvent.sequence).label("sequence"))
        .where(JobEvent.job_id.in_(trained), JobEvent.kind == "epoch")
        .group_by(JobEvent.job_id)
        .subquery()
    )
    query = select(JobEvent).join(last, (JobEvent.job_id == last.c.job_id) & (JobEvent.sequence == last.c.sequence))
    return {event.job_id: int(event.data["epoch"]) for event in session.scalars(query)}
