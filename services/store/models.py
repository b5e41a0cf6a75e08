"""The schema: one typed SQLAlchemy model per table. Every change here comes with an Alembic migration."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, always in UTC and always aware, on every backend."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuses naive times; stores UTC."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a naive datetime has no place in the store")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Gives SQLite's naive values their zone back."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all models, with names for every constraint so that migrations can address them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON}


class ClockAnchor(Base):
    """When the kernel's steady clock stood at zero, once per boot of the machine that has a SQLite file open; see `clock`."""

    __tablename__ = "clock_anchors"

    boot: Mapped[str] = mapped_column(String(64), primary_key=True)
    zero: Mapped[datetime]


class Backbone(Base):
    """What a backbone is like, described once by a process that has torch and asked of the API ever after."""

    __tablename__ = "backbones"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    spec: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    info: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(Text)
    requested_at: Mapped[datetime] = mapped_column(index=True)


class Artifact(Base):
    """A content-addressed file; its row appears only after its bytes are durable and hashed."""

    __tablename__ = "artifacts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(255))
    media_type: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    created_at: Mapped[datetime]


class Supernet(Base):
    """A trained supernet, keyed by the hash of all that determines it, and its training history."""

    __tablename__ = "supernets"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    recipe: Mapped[dict[str, Any]]
    history: Mapped[list[Any]]
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"))
    seconds: Mapped[float]
    created_at: Mapped[datetime]


class Job(Base):
    """One request, its state, and the lease under which a runner owns it.

    `parent_id` and `parent_action` are its lineage and outlive the parent; `inherited` generations were taken over from it.
    `waiting_for` is the job that trains the supernet or finalist that this one waits for; `awaited_key` is its key while the job waits
    in the queue, and not in a runner. `study_id` and `study_trial` say which study has submitted it, as which of its trials;
    `cancel_reason` is why it is cancelled, where that was not a person's wish.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        # the whole queue with all that a job's place in it depends on, without the rows themselves
        Index("ix_jobs_queue", "state", "created_at", "id", "user_name", "priority", "next_try_at", "awaited_key"),
        Index("ix_jobs_created_at_id", "created_at", "id"),
        Index("uq_jobs_study_id_study_trial", "study_id", "study_trial", unique=True),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    user_name: Mapped[str] = mapped_column(String(40), index=True)
    priority: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(String(16))
    phase: Mapped[str | None] = mapped_column(String(16))
    request: Mapped[dict[str, Any]]
    backbone_key: Mapped[str] = mapped_column(ForeignKey("backbones.key"))
    data: Mapped[dict[str, Any]]
    supernet_key: Mapped[str | None] = mapped_column(String(64), index=True)
    result: Mapped[dict[str, Any] | None]
    failure_reason: Mapped[str | None] = mapped_column(String(32))
    failure_message: Mapped[str | None] = mapped_column(Text)
    failure_detail: Mapped[str | None] = mapped_column(Text)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    pause_requested: Mapped[bool] = mapped_column(default=False)
    parent_id: Mapped[str | None] = mapped_column(String(32), index=True)
    parent_action: Mapped[str | None] = mapped_column(String(16))
    inherited: Mapped[int] = mapped_column(default=0)
    waiting_for: Mapped[str | None] = mapped_column(String(32))
    awaited_key: Mapped[str | None] = mapped_column(String(64), index=True)
    study_id: Mapped[str | None] = mapped_column(String(32))
    study_trial: Mapped[int | None]
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    retry: Mapped[dict[str, Any] | None]
    next_try_at: Mapped[datetime | None]
    run_seconds: Mapped[float] = mapped_column(default=0.0)
    lease_owner: Mapped[str | None] = mapped_column(String(120))
    lease_epoch: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class IdempotencyKey(Base):
    """A key that a user has sent with a submission, and the job that it stands for until it expires."""

    __tablename__ = "idempotency_keys"

    user_name: Mapped[str] = mapped_column(String(40), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Scheduler(Base):
    """A scheduler that is, or was, at work."""

    __tablename__ = "schedulers"

    name: Mapped[str] = mapped_column(String(120), primary_key=True)
    slots: Mapped[int]
    expires_at: Mapped[datetime]


class JobLog(Base):
    """The end of what one attempt's runner has printed."""

    __tablename__ = "job_logs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime]


class Claim(Base):
    """What a running job is computing for everyone: a supernet or an evaluation, by its key; void once the job's lease is another.

    `job_id` refers to no table row, so that a job can be deleted without asking who else is computing.
    """

    __tablename__ = "claims"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(32), index=True)
    epoch: Mapped[int]
    claimed_at: Mapped[datetime]


class JobEvent(Base):
    """Something that happened to a job; append-only, numbered from 1 within the job."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]]
    at: Mapped[datetime]


class Generation(Base):
    """A finished generation: its row, candidates and evaluations were committed in one transaction."""

    __tablename__ = "generations"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    best_hash: Mapped[str] = mapped_column(String(64))
    best_accuracy: Mapped[float]
    best_fitness: Mapped[float]
    best_loss: Mapped[float]
    best_parameters: Mapped[int]
    evaluated: Mapped[int]
    from_cache: Mapped[int]
    seconds: Mapped[float]
    committed_at: Mapped[datetime]


class Candidate(Base):
    """A member of a population: which subnet config, at which position, made by which operator from which parents."""

    __tablename__ = "candidates"
    __table_args__ = (ForeignKeyConstraint(["job_id", "generation"], ["generations.job_id", "generations.number"]),)

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    config_hash: Mapped[str] = mapped_column(String(64))
    config: Mapped[str] = mapped_column(Text)
    parameters: Mapped[int]
    operator: Mapped[str] = mapped_column(String(16))
    parents: Mapped[list[Any]]


class Evaluation(Base):
    """The fitness of a subnet config with a supernet on a split, by a metric under a protocol; measured once, kept for ever.

    `job_id` and `generation` say for whom it was measured first; it outlives that job.
    """

    __tablename__ = "evaluations"
    __table_args__ = (UniqueConstraint("supernet_key", "config_hash", "split", "protocol", "metric"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    supernet_key: Mapped[str] = mapped_column(ForeignKey("supernets.key"))
    config_hash: Mapped[str] = mapped_column(String(64))
    config: Mapped[str] = mapped_column(Text)
    split: Mapped[str] = mapped_column(String(16))
    protocol: Mapped[str] = mapped_column(String(64))
    metric: Mapped[str] = mapped_column(String(64))
    fitness: Mapped[float]
    accuracy: Mapped[float]
    macro_accuracy: Mapped[float | None]
    loss: Mapped[float]
    examples: Mapped[int]
    parameters: Mapped[int]
    job_id: Mapped[str | None] = mapped_column(String(32))
    generation: Mapped[int | None]
    created_at: Mapped[datetime]


class Study(Base):
    """A sweep of a job's settings, and the lease under which a driver owns it.

    `idempotency_key` is unique among its user's, until it is forgotten; `fingerprint` is of the request that it was sent with.
    """

    __tablename__ = "studies"
    __table_args__ = (
        Index("ix_studies_created_at_id", "created_at", "id"),
        UniqueConstraint("user_name", "idempotency_key"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    user_name: Mapped[str] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(16), index=True)
    request: Mapped[dict[str, Any]]
    metric: Mapped[str] = mapped_column(String(64))
    failure_reason: Mapped[str | None] = mapped_column(String(32))
    failure_message: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    retry: Mapped[dict[str, Any] | None]
    next_try_at: Mapped[datetime | None]
    lease_owner: Mapped[str | None] = mapped_column(String(120))
    lease_epoch: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64))
    key_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class StudyTrial(Base):
    """One point of a study: its settings, and the whole job request that they give, checked when the study was created.

    `job_id` is set with the job that it creates, and refers to no table row, since that job may be deleted. `stopped_at` is the
    epoch after which the study has stopped it.
    """

    __tablename__ = "study_trials"

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    settings: Mapped[dict[str, Any]]
    request: Mapped[dict[str, Any]]
    backbone_key: Mapped[str] = mapped_column(ForeignKey("backbones.key"))
    data: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(String(32))
    stopped_at: Mapped[int | None]
    stopped_why: Mapped[str | None] = mapped_column(Text)


class StudyReport(Base):
    """What a trial has reached at one step, in the order in which the study's scheduler was told; numbered from 1 within the study.

    `kind` is `probe` (mean loss on val of the supernet's probed subnets after an epoch, in nats) or `fitness` (best so far after a
    generation).
    """

    __tablename__ = "study_reports"
    __table_args__ = (
        UniqueConstraint("study_id", "trial", "kind", "step"),
        ForeignKeyConstraint(["study_id", "trial"], ["study_trials.study_id", "study_trials.number"]),
    )

    study_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    trial: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    step: Mapped[int]
    value: Mapped[float]
