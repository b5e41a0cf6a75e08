"""What the charts of a job show, thinned by SQL so that a page stays small whatever the job's size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from glora_core.metrics import UNMEASURED, own_value
from services.store import pareto, search_state
from services.store.models import Candidate, Evaluation, Generation, Job, JobEvent

POINTS = 2_000
LINE_POINTS = 500

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class GenerationPoint:
    """A generation: the metric searched for, and the accuracy, of the best so far, and the metric's spread in the population.

    The metric's own value everywhere, be more or less of it better; None where it was not measured.
    """

    number: int
    best: float | None
    accuracy: float
    least: float | None
    mean: float | None
    most: float | None


@dataclass(frozen=True, slots=True)
class EpochPoint:
    """An epoch's mean training loss; None where it is not finite."""

    epoch: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class ProbePoint:
    """Accuracy of the probed subnets inside the supernet after an epoch, by name."""

    epoch: int
    accuracy: dict[str, float]


@dataclass(frozen=True, slots=True)
class CandidatePoint:
    """An evaluated candidate; `value` is of the metric searched for, None where it was not measured."""

    generation: int
    operator: str
    parameters: int
    value: float | None
    accuracy: float


@dataclass(frozen=True, slots=True)
class TradeOff:
    """A candidate of the front of a job with a second objective; `second` is its accuracy there, `value` of the metric searched for."""

    parameters: int
    value: float | None
    second: float


@dataclass(frozen=True, slots=True)
class ChartData:
    """Everything the charts of one job need; `total` counts all candidates, of which `candidates` may be a sample."""

    epochs: tuple[EpochPoint, ...]
    probes: tuple[ProbePoint, ...]
    generations: tuple[GenerationPoint, ...]
    candidates: tuple[CandidatePoint, ...]
    best: CandidatePoint | None
    total: int
    front: tuple[TradeOff, ...] = ()
    limit: int = POINTS


def chart_data(session: Session, job: Job) -> ChartData:
    """The charts of a job: every line at most LINE_POINTS long, at most POINTS candidates, the best always among them."""
    reports = _reports(session, job)
    epochs = tuple(EpochPoint(data["epoch"], data["loss"] if math.isfinite(data["loss"]) else None) for data in thin(reports, LINE_POINTS))
    probes = tuple(ProbePoint(data["epoch"], data["probe"]) for data in reports if data.get("probe"))
    last, total = search_state.last_generation(session, job.id), search_state.count_candidates(session, job.id)
    metric = search_state.metric_of(job)
    numbers = thin(range(last.number + 1), LINE_POINTS) if last else []
    best = _best(session, job, last, metric) if last else None
    return ChartData(
        epochs,
        probes,
        _generations(session, job, numbers, metric),
        _sample(session, job, total, metric),
        best,
        total,
        _front(session, job, metric),
    )


def thin(items: Sequence[Item], limit: int) -> list[Item]:
    """At most `limit` of the items, evenly spaced, first and last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def _reports(session: Session, job: Job) -> list[dict[str, Any]]:
    """What is known of every epoch: the supernet's own history once it is stored, until then the last report of each."""
    stored = search_state.supernet(session, job.supernet_key) if job.supernet_key else None
    if stored is not None:
        history: list[dict[str, Any]] = stored.history
        return history
    query = select(JobEvent).where(JobEvent.job_id == job.id, JobEvent.kind == "epoch").order_by(JobEvent.sequence)
    found = {event.data["epoch"]: event.data for event in session.scalars(query)}
    return [found[epoch] for epoch in sorted(found)]


def _value(metric: str, fitness: float) -> float | None:
    return None if fitness == UNMEASURED else own_value(metric, fitness)


def _generations(session: Session, job: Job, numbers: Sequence[int], metric: str) -> tuple[GenerationPoint, ...]:
    """These generations; of a long search the others are not read at all."""
    query = select(Generation).where(Generation.job_id == job.id, Generation.number.in_(numbers)).order_by(Generation.number)
    spread = _spread(session, job, numbers, metric)
    return tuple(
        GenerationPoint(row.number, _value(metric, row.best_fitness), row.best_accuracy, *spread.get(row.number, (None, None, None)))
        for row in session.scalars(query)
    )


def _spread(session: Session, job: Job, numbers: Sequence[int], metric: str) -> dict[int, tuple[float, float, float]]:
    """Least, mean and greatest value of the metric in these generations' populations."""
    fitness = Evaluation.fitness
    query = (
        select(Candidate.generation, func.min(fitness), func.avg(fitness), func.max(fitness))
        .join(Evaluation, search_state.measured(job))
        .where(Candidate.job_id == job.id, Candidate.generation.in_(numbers), fitness != UNMEASURED)
        .group_by(Candidate.generation)
    )
    found = {}
    for number, *values in session.execute(query):
        least, mean, most = (own_value(metric, value) for value in values)
        found[number] = (min(least, most), mean, max(least, most))
    return found


def _sample(session: Session, job: Job, total: int, metric: str) -> tuple[CandidatePoint, ...]:
    """Every n-th candidate in order, so that at most POINTS remain."""
    stride = max(math.ceil(total / POINTS), 1)
    place = func.row_number().over(order_by=(Candidate.generation, Candidate.position)).label("place")
    numbered = select(Candidate.generation, Candidate.position, place).where(Candidate.job_id == job.id).subquery()
    query = (
        select(Candidate.generation, Candidate.operator, Candidate.parameters, Evaluation.fitness, Evaluation.accuracy)
        .join(numbered, (numbered.c.generation == Candidate.generation) & (numbered.c.position == Candidate.position))
        .join(Evaluation, search_state.measured(job))
        .where(Candidate.job_id == job.id, numbered.c.place % stride == 0)
        .order_by(Candidate.generation, Candidate.position)
    )
    return tuple(_point(metric, *row) for row in session.execute(query))


def _front(session: Session, job: Job, metric: str) -> tuple[TradeOff, ...]:
    """The front of a job with a second objective; nothing for others."""
    points = pareto.front(session, job) if pareto.second_split(job) else []
    return tuple(TradeOff(p.parameters, _value(metric, p.fitness), p.second_accuracy) for p in points if p.second_accuracy is not None)


def _best(session: Session, job: Job, last: Generation, metric: str) -> CandidatePoint | None:
    """The best candidate so far, as it was first proposed."""
    query = (
        select(Candidate.generation, Candidate.operator, Candidate.parameters, Evaluation.fitness, Evaluation.accuracy)
        .join(Evaluation, search_state.measured(job))
        .where(Candidate.job_id == job.id, Candidate.config_hash == last.best_hash)
        .order_by(Candidate.generation, Candidate.position)
        .limit(1)
    )
    row = session.execute(query).first()
    return _point(metric, *row) if row else None


def _point(metric: str, generation: int, operator: str, parameters: int, fitness: float, accuracy: float) -> CandidatePoint:
    return CandidatePoint(generation, operator, parameters, _value(metric, fitness), accuracy)
