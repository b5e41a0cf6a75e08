"""What a study's driver reads and writes: the job of each trial, what it has reached so far, and which trials are stopped early.

A report and what was decided upon it are one transaction, in the order in which the early stop was told; so its memory can be made
again from SQL alone, and no decision is taken twice.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from glora_core.metrics import UNMEASURED
from services.store import events, jobs, queue, search_state, study_leases
from services.store.models import Job, JobEvent, Study, StudyReport, StudyTrial
from services.store.queue import Quotas

PROBE, FITNESS = "probe", "fitness"


@dataclass(frozen=True, slots=True)
class Report:
    """What a trial has reached at a step.

    Attributes:
        kind: `probe`: mean loss on val, in nats, of the supernet's probed subnets after epoch `step`; less is better. `fitness`: best so
            far after generation `step`, from 0; more is better.
    """

    trial: int
    kind: str
    step: int
    value: float

    @property
    def key(self) -> tuple[int, str, int]:
        """What tells it from others of its study."""
        return self.trial, self.kind, self.step


def submit(session: Session, study: Study, number: int, quotas: Quotas) -> str:
    """The job of a trial, queued now if it was not before; returns its id. The study is held under its lease.

    Raises:
        QuotaExceeded: its user has too much in the queue, or stored, for now.
    """
    trial = session.get_one(StudyTrial, (study.id, number))
    if trial.job_id is not None:
        return trial.job_id
    queue.check_quotas(session, study.user_name, quotas)
    name = f"{study.name} · {number}"[:120]
    job = jobs.create(session, name=name, request=trial.request, backbone_key=trial.backbone_key, data=trial.data, user=study.user_name)
    job.study_id, job.study_trial, trial.job_id = study.id, number, job.id
    study.attempts = 0
    events.append(session, job.id, "study", {"study": study.id, "trial": number})
    return job.id


def unfinished(session: Session, study_id: str) -> list[int]:
    """Numbers of the trials that are to be run or followed further: of no job yet, or of one that is not over or has unread reports.

    A job may have ended while no driver lived; early stops go by what it reached all the same.
    """
    query = (
        select(StudyTrial.number, StudyTrial.job_id, Job.state)
        .outerjoin(Job, Job.id == StudyTrial.job_id)
        .where(StudyTrial.study_id == study_id, StudyTrial.stopped_at.is_(None))
        .where(StudyTrial.job_id.is_(None) | Job.id.is_not(None))
        .order_by(StudyTrial.number)
    )
    rows = session.execute(query).all()
    return [
        number
        for number, job_id, state in rows
        if job_id is None or state in jobs.ALIVE or reader_of(session, study_id, number, job_id).look(session)[0]
    ]


def reports(session: Session, study_id: str) -> list[Report]:
    """All reports of a study, in the order in which they were recorded."""
    columns = (StudyReport.trial, StudyReport.kind, StudyReport.step, StudyReport.value)
    query = select(*columns).where(StudyReport.study_id == study_id).order_by(StudyReport.sequence)
    return [Report(*row) for row in session.execute(query)]


def record(session: Session, study: Study, report: Report, stop: str | None = None) -> None:
    """Store a report and, with a reason to stop its trial, cancel its job. The study is held under its lease."""
    last = session.scalar(select(func.max(StudyReport.sequence)).where(StudyReport.study_id == study.id)) or 0
    values: dict[str, Any] = {"trial": report.trial, "kind": report.kind, "step": report.step, "value": report.value}
    session.add(StudyReport(study_id=study.id, sequence=last + 1, **values))
    study.attempts = 0
    trial = session.get_one(StudyTrial, (study.id, report.trial))
    if stop is None or trial.job_id is None:
        return
    job = session.scalars(select(Job).where(Job.id == trial.job_id).with_for_update()).first()
    if job is not None and job.state in jobs.ALIVE:
        trial.stopped_at, trial.stopped_why = report.step, stop
        jobs.request_cancel(session, job.id, f"stopped early by study {study.id}: {stop}")


def reader_of(session: Session, study_id: str, number: int, job_id: str) -> "TrialReader":
    """A reader of a trial's job that starts after what is stored of it."""
    last = select(StudyReport.kind, func.max(StudyReport.step)).where(StudyReport.study_id == study_id, StudyReport.trial == number)
    steps = {PROBE: 0, FITNESS: -1} | dict(session.execute(last.group_by(StudyReport.kind)).tuples().all())
    return TrialReader(number, job_id, epoch=steps[PROBE], generation=steps[FITNESS])


@dataclass
class TrialReader:
    """Reads what a trial's job has reached since the last look.

    Args:
        job_id: of the trial's job.
    """

    number: int
    job_id: str
    event: int = 0
    epoch: int = 0
    generation: int = -1

    def look(self, session: Session) -> tuple[list[Report], bool]:
        """What is new, oldest first, and whether the job is over; one that was deleted is."""
        job = session.get(Job, self.job_id)
        if job is None:
            return [], True
        found = [self._report(PROBE, row["epoch"], row["val_loss"]) for row in self._epochs(session, job)]
        for row in search_state.generations(session, self.job_id, self.generation):
            self.generation = row.number
            if row.best_fitness != UNMEASURED:
                found.append(self._report(FITNESS, row.number, row.best_fitness))
        return found, job.state in jobs.FINAL

    def _epochs(self, session: Session, job: Job) -> list[dict[str, Any]]:
        """Probed epochs: of the supernet's own history once it is stored, whoever has trained it; until then of the job's events."""
        stored = search_state.supernet(session, job.supernet_key) if job.supernet_key else None
        new = [row for row in (stored.history if stored else self._told(session)) if _probed(row) and row["epoch"] > self.epoch]
        self.epoch = max((row["epoch"] for row in new), default=self.epoch)
        return new

    def _told(self, session: Session) -> Iterable[dict[str, Any]]:
        query = select(JobEvent).where(JobEvent.job_id == self.job_id, JobEvent.sequence > self.event).order_by(JobEvent.sequence)
        rows = list(session.scalars(query))
        self.event = rows[-1].sequence if rows else self.event
        return [row.data for row in rows if row.kind == "epoch"]

    def _report(self, kind: str, step: int, value: float) -> Report:
        return Report(self.number, kind, step, float(value))


def conclude(session: Session, study: Study) -> bool:
    """End a study if all of its jobs are over: succeeded if one of them has, else failed; returns whether they are.

    Those of trials that were stopped take a moment to end. The study is held under its lease.
    """
    states = list(session.scalars(select(Job.state).where(Job.study_id == study.id)))
    if not jobs.FINAL.issuperset(states):
        return False
    if "succeeded" in states:
        study_leases.finish(session, study, "succeeded")
        return True
    counted = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    study_leases.finish(session, study, "failed", "no_trial_succeeded", f"none of its trials has succeeded ({counted}); see their jobs")
    return True


def _probed(row: dict[str, Any]) -> bool:
    loss = row.get("val_loss")
    return loss is not None and math.isfinite(loss)
