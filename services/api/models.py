"""Response models of the REST surface, with units and examples; requests are in `services.job_request`."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.job_request import JobRequest

State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]


FITNESS = "The job's `search.metric` on val, or minus it where less is better: more is always better."


class _FromRow(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Failure(BaseModel):
    """Why a job failed."""

    reason: str = Field(description="Stable reason for programs.", examples=["data_invalid"])
    message: str = Field(description="What happened, for people.")
    detail: str | None = Field(None, description="Traceback.")


class Retry(BaseModel):
    """Why the last attempt failed, and the one after it: what a job waits for, or tries now."""

    reason: str = Field(description="Stable reason for programs, as in `failure`.", examples=["worker_lost"])
    message: str = Field(description="What happened, for people.")
    attempt: int = Field(description="Number of the next attempt, or of the one that runs.", examples=[2])
    of: int = Field(description="Attempts that a job has in a row without progress, for this reason.", examples=[3])


class WaitingView(_FromRow):
    """Where a queued job stands, and what it waits for."""

    position: int = Field(description="1 for the job that is started next, if nothing changes; those that are held back come last.")
    of: int = Field(description="Jobs in the queue.")
    reason: Literal["retry", "supernet", "quota", "no_scheduler", "jobs_ahead", "schedulers_busy", "next"] = Field(
        description="Stable, for programs."
    )
    message: str = Field(description="The same for people.", examples=["2 jobs ahead of it"])


class BestSoFar(BaseModel):
    """The best candidate of the search so far."""

    accuracy: float = Field(description="Accuracy on val, 0–1.")
    fitness: float = Field(description=FITNESS)
    loss: float = Field(description="Mean cross-entropy on val, in nats.")
    parameters: int = Field(description="Trainable parameters, head not counted.")
    generation: int = Field(description="Last finished generation, from 0.")


class Expected(BaseModel):
    """How long a job is expected to take, from a measured speed; told before training, and again whenever a phase is over."""

    text: str = Field(description="For people.", examples=["about 12 min (supernet 5, search 2, finals 5)"])
    seconds: float = Field(description="In all, what is over included.")
    left_seconds: float = Field(description="Of the phases that were not over when it was told.")
    phases: dict[str, float] = Field(
        description="Seconds of `supernet`, `search`, `finals` and `export`: of those that are over, as taken."
    )
    over: list[str] = Field(description="Phases that are over.")


class Lineage(BaseModel):
    """A tie between two jobs: the one at the other end, and by which action the younger came from the older."""

    job: str = Field(description="Id of the other job; it may have been deleted.")
    action: Literal["extend", "fork", "clone"]


class OfStudy(BaseModel):
    """The study that has submitted a job, and as which of its trials."""

    id: str = Field(examples=["s3f9a1c07b2d4"])
    trial: int = Field(description="From 1.")


class CacheView(_FromRow):
    """What the evaluation cache has saved a job's search so far."""

    asked: int = Field(description="Candidates whose fitness the search asked for.")
    from_cache: int = Field(description="Those whose fitness was stored, or that were in a population twice.")
    evaluated: int = Field(description="Those that were evaluated for this job, each once.")
    inherited: int = Field(description="Candidates of generations that an extended job took over from its parent; not among `asked`.")


class JobView(BaseModel):
    """A job: what was asked for, how far it is, and what came out."""

    id: str = Field(examples=["j3f9a1c07b2d4"])
    name: str
    user: str = Field(description="Who submitted it, by the token.", examples=["default"])
    priority: int
    waiting: WaitingView | None = Field(description="Its place in the queue, while it is queued.")
    evaluators: int | None = Field(
        description="Evaluators that it may hold now, by its user's quota; null where there is none, or while it does not search."
    )
    state: State
    phase: str | None = Field(description="prepare, train, search, finals or export, once it runs.")
    request: JobRequest
    data: dict[str, Any] = Field(
        description="As found at submission: kind, fingerprint, classes, sizes of the splits, examples per class, duplicates, warnings."
    )
    supernet: str | None = Field(description="Key of the trained supernet, once there is one.")
    generations_done: int = Field(description="Finished generations.")
    best: BestSoFar | None
    expected: Expected | None = Field(description="How long it is expected to take, once its data and backbone are prepared.")
    cache: CacheView
    result: dict[str, Any] | None = Field(description="Winner, finalists, baselines and merge error, once it has succeeded.")
    failure: Failure | None
    cancel_requested: bool
    cancel_reason: str | None = Field(description="Why it is cancelled, where a study has done that.")
    study: OfStudy | None = Field(description="The study that has submitted it.")
    pause_requested: bool = Field(description="It pauses as soon as what it has in hand is stored.")
    waiting_for: str | None = Field(
        description="The job that is training the supernet, or a finalist, that this one needs, while it waits for it."
    )
    lineage: Lineage | None = Field(description="The job that this one was made from; null if it was submitted by itself.")
    children: list[Lineage] = Field(description="Jobs made from this one, oldest first.")
    attempts: int = Field(description="Attempts that failed since the job last made progress.")
    retry: Retry | None = Field(description="The last failed attempt, while the job waits for the next one or tries it.")
    next_try_at: datetime | None = Field(description="When a waiting job is tried again.")
    run_seconds: float = Field(description="How long it has run, over all attempts and without the time in the queue.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobSummary(_FromRow):
    """A job in a list."""

    id: str
    name: str
    user: str = Field(validation_alias="user_name")
    priority: int
    state: State
    waiting: WaitingView | None = Field(None, description="Its place in the queue, while it is queued.")
    phase: str | None
    failure_reason: str | None
    parent_id: str | None = Field(description="The job that this one was made from.")
    parent_action: str | None = Field(description="How: extend, fork or clone.")
    study_id: str | None = Field(description="The study that has submitted it.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    items: list[JobSummary]
    next: str | None = Field(description="Pass as `cursor` to get the next page; null on the last one.")


class GenerationView(_FromRow):
    """A finished generation."""

    number: int
    best_hash: str = Field(description="Hash of the best subnet config so far.")
    best_accuracy: float = Field(description="Accuracy on val, 0–1, of the best so far.")
    best_fitness: float = Field(description=FITNESS)
    best_loss: float = Field(description="Mean cross-entropy on val, in nats, of the best so far.")
    best_parameters: int = Field(description="Trainable parameters of the best so far.")
    evaluated: int = Field(description="Candidates that had to be evaluated.")
    from_cache: int = Field(description="Candidates whose fitness was known.")
    seconds: float = Field(description="Wall time of the generation.")
    committed_at: datetime


class GenerationPage(BaseModel):
    """A page of generations, in order."""

    items: list[GenerationView]
    next: str | None = Field(description="Pass as `cursor` to get the next page; null on the last one.")


class EvaluationView(BaseModel):
    """A candidate and its fitness on val."""

    generation: int
    position: int = Field(description="Place in the population, from 0.")
    operator: str = Field(description="seed, random, crossover or mutation.")
    parents: list[str] = Field(description="Hashes of the configs it was made from.")
    hash: str = Field(description="sha256 of the config's canonical text.")
    config: str = Field(description="Canonical text of the subnet config: five choices per layer, layers joined by `-`.")
    parameters: int = Field(description="Trainable parameters, head not counted.")
    accuracy: float = Field(description="Accuracy on val, 0–1.")
    macro_accuracy: float | None = Field(description="Mean recall of val's classes, 0–1; null if measured before it was.")
    fitness: float = Field(description=FITNESS)
    loss: float = Field(description="Mean cross-entropy on val, in nats.")


class EvaluationPage(BaseModel):
    """A page of evaluated candidates, by generation and position."""

    items: list[EvaluationView]
    next: str | None = Field(description="Pass as `cursor` to get the next page; null on the last one.")


class EventView(_FromRow):
    """Something that happened to a job."""

    sequence: int = Field(description="Number within the job, from 1 without gaps.")
    kind: str = Field(examples=["generation"])
    data: dict[str, Any]
    at: datetime


class ArtifactView(_FromRow):
    """A file that a job has made."""

    id: str
    job_id: str | None
    kind: str = Field(
        description="merged, timm-config or transformers-config, tokenizer, manifest, model-card, adapter, supernet or finalist."
    )
    name: str
    media_type: str
    size: int = Field(description="Bytes.")
    sha256: str
    created_at: datetime


class ArtifactList(BaseModel):
    """A job's artifacts, in the order they were made."""

    items: list[ArtifactView]


class Health(BaseModel):
    """Answer of the health checks."""

    status: Literal["ok"] = "ok"
