"""What a search has done: supernets, generations, candidates and evaluations.

A generation is written inside one transaction: its row, its candidates, its evaluations and its event are all there, or
none of them is.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, tuple_
from sqlalchemy.orm import Session

from glora_core.metrics import ACCURACY
from services.protocol import protocol
from services.store import events
from services.store.database import insert_all, insert_new
from services.store.models import Artifact, Candidate, Evaluation, Generation, Job, Supernet

_IN_LIMIT = 500
_PAGE_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class Fitness:
    """A measured fitness as it comes from an evaluator; see `glora_core.evaluation.Score`.

    `macro_accuracy` is None for what was measured before it was.
    """

    accuracy: float
    loss: float
    examples: int
    macro_accuracy: float | None
    fitness: float


def known(session: Session, supernet_key: str, split: str, protocol: str, metric: str, hashes: Iterable[str]) -> dict[str, Evaluation]:
    """Stored evaluations by config hash, of those asked for."""
    wanted, found = list(dict.fromkeys(hashes)), dict[str, Evaluation]()
    for start in range(0, len(wanted), _IN_LIMIT):
        query = select(Evaluation).where(
            Evaluation.supernet_key == supernet_key,
            Evaluation.split == split,
            Evaluation.protocol == protocol,
            Evaluation.metric == metric,
            Evaluation.config_hash.in_(wanted[start : start + _IN_LIMIT]),
        )
        found |= {row.config_hash: row for row in session.scalars(query)}
    return found


def add_evaluations(session: Session, rows: Sequence[Evaluation]) -> list[Evaluation]:
    """Add evaluations that are not stored yet; one that another job stored first is left as it is. Returns those added."""
    by_hash = {row.config_hash: row for row in sorted(rows, key=lambda row: row.config_hash)}
    added = insert_new(session, list(by_hash.values()))
    present = session.scalars(select(Evaluation.config_hash).where(Evaluation.id.in_([key for (key,) in added])))
    return [by_hash[digest] for digest in present]


def commit_generation(session: Session, job: Job, generation: Generation, candidates: Sequence[Candidate]) -> None:
    """Write a finished generation, whose evaluations are stored in the same fenced transaction, with the event that reports it."""
    session.add(generation)
    insert_all(session, candidates)
    job.attempts = 0
    events.append(session, job.id, "generation", generation_event(generation))


def generation_event(generation: Generation) -> dict[str, Any]:
    """The payload of a generation's event."""
    return {
        "generation": generation.number,
        "best_accuracy": generation.best_accuracy,
        "best_fitness": generation.best_fitness,
        "best_loss": generation.best_loss,
        "best_parameters": generation.best_parameters,
        "evaluated": generation.evaluated,
        "from_cache": generation.from_cache,
        "seconds": generation.seconds,
    }


def generations(session: Session, job_id: str, after: int = -1, limit: int | None = None) -> list[Generation]:
    """A job's finished generations numbered above `after`, in order."""
    query = select(Generation).where(Generation.job_id == job_id, Generation.number > after).order_by(Generation.number)
    return list(session.scalars(query.limit(limit)))


def candidates(session: Session, job_id: str, generation: int | None = None) -> list[Candidate]:
    """A job's candidates, of all generations or of one, in order."""
    query = select(Candidate).where(Candidate.job_id == job_id).order_by(Candidate.generation, Candidate.position)
    return list(session.scalars(query if generation is None else query.where(Candidate.generation == generation)))


def last_generation(session: Session, job_id: str) -> Generation | None:
    """A job's last finished generation."""
    query = select(Generation).where(Generation.job_id == job_id).order_by(Generation.number.desc()).limit(1)
    return session.scalars(query).first()


def metric_of(job: Job) -> str:
    """The metric that a job searches for; jobs of before there was a choice search for accuracy."""
    return str(job.request.get("search", {}).get("metric", ACCURACY))


def protocol_of(job: Job) -> str:
    """How a job's candidates are measured; jobs of before there was a choice measure in float32."""
    return protocol(job.request.get("search", {}).get("precision", "float32"))


def measured(job: Job) -> ColumnElement[bool]:
    """What pairs a job's candidates with their fitness on val."""
    return and_(
        Evaluation.supernet_key == job.supernet_key,
        Evaluation.config_hash == Candidate.config_hash,
        Evaluation.split == "val",
        Evaluation.protocol == protocol_of(job),
        Evaluation.metric == metric_of(job),
    )


def evaluated_candidates(
    session: Session, job: Job, after: tuple[int, int] = (-1, -1), limit: int | None = None, generation: int | None = None
) -> list[tuple[Candidate, Evaluation]]:
    """A job's candidates with their fitness on val, by generation and position, after the given pair; of one generation, if given."""
    query = (
        select(Candidate, Evaluation)
        .join(Evaluation, measured(job))
        .where(
            Candidate.job_id == job.id,
            tuple_(Candidate.generation, Candidate.position) > tuple_(*after),
        )
        .order_by(Candidate.generation, Candidate.position)
        .limit(limit)
    )
    query = query if generation is None else query.where(Candidate.generation == generation)
    return [(candidate, evaluation) for candidate, evaluation in session.execute(query)]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a search reads of an evaluation; a part of its row."""

    config: str
    metric: str
    fitness: float
    accuracy: float
    macro_accuracy: float | None
    loss: float
    parameters: int


def history(session: Session, job: Job) -> Iterator[tuple[int, Measurement]]:
    """A job's candidates as (generation, what was measured), by generation and position; fetched in pages."""
    columns = [getattr(Evaluation, field.name) for field in fields(Measurement)]
    query = (
        select(Candidate.generation, *columns)
        .join(Evaluation, measured(job))
        .where(Candidate.job_id == job.id)
        .order_by(Candidate.generation, Candidate.position)
    )
    for generation, *found in session.execute(query.execution_options(yield_per=_PAGE_ROWS)):
        yield generation, Measurement(*found)


def count_candidates(session: Session, job_id: str) -> int:
    """How many candidates a job has stored."""
    return session.scalar(select(func.count()).select_from(Candidate).where(Candidate.job_id == job_id)) or 0


def add_supernet(session: Session, supernet: Supernet, artifact: Artifact) -> None:
    """Add a trained supernet and its artifact; keeps the one that is there if another job was first."""
    if session.get(Supernet, supernet.key) is not None:
        return
    session.add(artifact)
    session.flush()
    if not insert_new(session, [supernet]):
        session.delete(artifact)


def supernet(session: Session, key: str) -> Supernet | None:
    """A trained supernet by its key."""
    return session.get(Supernet, key)


def fitness_of(row: Evaluation) -> Fitness:
    """What a stored evaluation has measured."""
    return Fitness(row.accuracy, row.loss, row.examples, row.macro_accuracy, row.fitness)


def evaluation_row(
    supernet_key: str, split: str, protocol: str, metric: str, config_hash: str, config: str, parameters: int, fitness: Fitness
) -> Evaluation:
    """The row of one fresh evaluation."""
    return Evaluation(
        supernet_key=supernet_key,
        config_hash=config_hash,
        config=config,
        split=split,
        protocol=protocol,
        metric=metric,
        fitness=fitness.fitness,
        macro_accuracy=fitness.macro_accuracy,
        accuracy=fitness.accuracy,
        loss=fitness.loss,
        examples=fitness.examples,
        parameters=parameters,
        created_at=datetime.now(UTC),
    )
