"""Rows that the tests need, each with as little in it as the schema allows, and what a database holds as a whole."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.orm import Session

from services.protocol import PROTOCOL
from services.store import backbones, clock, events, jobs, search_state
from services.store.database import Database
from services.store.jobs import Lease
from services.store.models import Artifact, Base, Candidate, Evaluation, Generation, Job, JobEvent, Supernet
from services.store.retries import RetryRules
from services.store.search_state import Fitness

SPEC = {"name": "toy"}
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""A moment that rows may be dated from."""


def add_job(database: Database, name: str = "toy", **columns: Any) -> str:
    """A queued job, with some of its columns set to other values; returns its id."""
    with database.write() as session:
        key = backbones.request(session, SPEC).key
        session.flush()
        job = jobs.create(session, name=name, request={"budget": 7}, backbone_key=key, data={"classes": ["a"]})
    if columns:
        change_job(database, job.id, **columns)
    return columns.get("id", job.id)


def add_running_job(database: Database, owner: str = "runner") -> Lease:
    """A job under a lease that holds for long; there must be no other job to claim."""
    job_id = add_job(database)
    lease = claim(database, owner)
    assert lease is not None and lease.job_id == job_id
    return lease


def change_job(database: Database, job_id: str, **columns: Any) -> None:
    """Set columns of a job's row, whatever its state."""
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**columns))


def expire(database: Database, job_id: str) -> None:
    """Let the lease of a job run out."""
    with database.write() as session:
        past = clock.now(session) - timedelta(seconds=1)
    change_job(database, job_id, lease_expires_at=past)


def claim(database: Database, owner: str = "runner", max_attempts: int = 3) -> Lease | None:
    """Claim a job for an hour, in a transaction of its own."""
    with database.write() as session:
        return jobs.claim(session, owner, 3600, RetryRules(attempts=max_attempts))


def job_of(database: Database, job_id: str) -> Job:
    """A job as it is stored."""
    with database.read() as session:
        return jobs.get(session, job_id)


def events_of(database: Database, job_id: str) -> list[JobEvent]:
    """All events of a job."""
    with database.read() as session:
        return events.after(session, job_id, 0)


def kinds_of(database: Database, job_id: str) -> list[str]:
    """The kinds of all events of a job, in order."""
    return [event.kind for event in events_of(database, job_id)]


def contents(database: Database) -> dict[str, Sequence[Row[Any]]]:
    """Every row of every table, for telling whether anything was written at all."""
    with database.read() as session:
        return {
            table.name: session.execute(select(table).order_by(*table.primary_key.columns)).all() for table in Base.metadata.sorted_tables
        }


def add_supernet(session: Session, key: str = "supernet") -> None:
    """A trained supernet and the artifact that it needs."""
    session.add(artifact(f"a-{key}"))
    session.flush()
    session.add(Supernet(key=key, recipe={}, history=[], artifact_id=f"a-{key}", seconds=1.0, created_at=EPOCH))
    session.flush()


def artifact(artifact_id: str, job_id: str | None = None, created_at: datetime = EPOCH) -> Artifact:
    """The row of an artifact that nobody will read."""
    return Artifact(
        id=artifact_id, job_id=job_id, kind="log", name="log.txt", media_type="text/plain", size=0, sha256="0" * 64, created_at=created_at
    )


def evaluation(
    config_hash: str,
    accuracy: float = 0.5,
    *,
    supernet_key: str = "supernet",
    split: str = "val",
    protocol: str = PROTOCOL,
    metric: str = "accuracy",
) -> Evaluation:
    """An evaluation of one config."""
    fitness = Fitness(accuracy, 1.0, 10, accuracy / 2, accuracy)
    return search_state.evaluation_row(supernet_key, split, protocol, metric, config_hash, f"config {config_hash}", 7, fitness)


def generation(job_id: str, number: int) -> Generation:
    """A finished generation."""
    return Generation(
        job_id=job_id,
        number=number,
        best_hash="best",
        best_accuracy=0.5 + number / 100,
        best_fitness=0.5 + number / 100,
        best_loss=1.0,
        best_parameters=7,
        evaluated=2,
        from_cache=1,
        seconds=0.5,
        committed_at=EPOCH,
    )


def population(job_id: str, number: int, hashes: Sequence[str]) -> list[Candidate]:
    """The candidates of a generation, one for each config hash, in order."""
    return [
        Candidate(
            job_id=job_id,
            generation=number,
            position=position,
            config_hash=config_hash,
            config=f"config {config_hash}",
            parameters=7,
            operator="random",
            parents=[],
        )
        for position, config_hash in enumerate(hashes)
    ]
