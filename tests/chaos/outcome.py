"""What a job has come to, as far as it must not depend on what happened on the way; and what must have happened once only."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.store.models import Artifact, Candidate, Evaluation, Generation, Job, JobEvent
from tests.chaos.plane import Plane

_ONCE = {"queued", "started", "succeeded", "failed"}
_SAME_BYTES = ("supernet", "finalist", "merged", "timm-config")
"""Artifacts without names, times or ids of the job in them; safetensors writes the several facts of an adapter in any order."""


@dataclass(frozen=True)
class Outcome:
    """Of one job, every field in a fixed order.

    Attributes:
        populations: every candidate of every generation.
        evaluations: every measured fitness.
        result: winner, finalists and scores.
        artifacts: kinds and hashes of the bytes.
    """

    state: str
    failure: str | None
    supernet: str | None
    populations: list[tuple[Any, ...]]
    evaluations: list[tuple[Any, ...]]
    generations: list[tuple[Any, ...]]
    result: dict[str, Any] | None
    artifacts: list[tuple[str, str]]


def outcome_of(plane: Plane, job_id: str) -> Outcome:
    """The outcome of a job in a database that has only this one."""
    with plane.database.read() as session:
        job = session.get_one(Job, job_id)
        return Outcome(
            state=job.state,
            failure=f"{job.failure_reason}: {job.failure_message}\n{job.failure_detail}" if job.failure_reason else None,
            supernet=job.supernet_key,
            populations=_rows(session, Candidate, "generation", "position", "config", "parameters", "operator", "parents"),
            evaluations=_rows(session, Evaluation, *_MEASURED),
            generations=_rows(session, Generation, "number", "best_hash", "best_fitness", "best_loss", "best_parameters"),
            result=job.result,
            artifacts=sorted({(row.kind, row.sha256) for row in session.scalars(select(Artifact)) if row.kind in _SAME_BYTES}),
        )


_MEASURED = ("supernet_key", "split", "protocol", "metric", "config", "fitness", "accuracy", "macro_accuracy", "loss", "examples")


def done_twice(plane: Plane, job_id: str) -> list[str]:
    """What was committed more than once though it may be only once: evaluations, generations, finalists, and the job's end."""
    with plane.database.read() as session:
        rows = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.sequence)).all()
        identity = (Evaluation.supernet_key, Evaluation.config_hash, Evaluation.split, Evaluation.protocol, Evaluation.metric)
        repeated = session.execute(select(*identity).group_by(*identity).having(func.count() > 1)).all()
    counted = Counter(_named(row) for row in rows)
    gaps = [] if [row.sequence for row in rows] == list(range(1, len(rows) + 1)) else ["the log has gaps"]
    return [f"{name} {count} times" for name, count in counted.items() if name and count > 1] + list(map(str, repeated)) + gaps


def _named(event: JobEvent) -> str:
    if event.kind == "generation":
        return f"generation {event.data['generation']}"
    if event.kind == "finalist":
        return f"finalist {event.data['source']} {event.data['start']} {event.data['learning_rate']} {event.data['rung']}"
    return event.kind if event.kind in _ONCE else ""


def _rows(session: Session, model: Any, *columns: str) -> list[tuple[Any, ...]]:
    found = [tuple(getattr(row, column) for column in columns) for row in session.scalars(select(model))]
    return sorted(found, key=repr)
