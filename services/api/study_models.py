"""Response models of studies; the request is in `services.study_request`."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.study_request import StudyRequest

StudyState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
TrialState = Literal["waiting", "queued", "running", "paused", "succeeded", "stopped", "failed", "cancelled", "deleted"]


class _FromRow(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class TrialView(_FromRow):
    """A trial of a study beside the others."""

    number: int = Field(description="From 1.")
    settings: dict[str, Any] = Field(description="What differs from the other trials: swept settings by dotted names.")
    state: TrialState = Field(description="Its job's; `waiting` to become one, `stopped` early by the study, `deleted` since.")
    job: str | None = Field(description="Id of its job.", examples=["j3f9a1c07b2d4"])
    phase: str | None = Field(description="Of a running job.")
    stopped_at: int | None = Field(description="Epoch after which the study stopped it.")
    stopped_why: str | None = Field(description="Why, for people.")
    failure: str | None = Field(description="Why its job failed.")
    best: float | None = Field(description="The job's `search.metric` on val: of the result, or of the search so far.")
    val_accuracy: float | None = Field(description="Accuracy on val, 0–1, of the same.")
    searched: float | None = Field(description="The metric on val of the search's best, inside the supernet.")
    parameters: int | None = Field(description="Trainable parameters of the best, head not counted.")
    test_accuracy: float | None = Field(description="Accuracy on test, 0–1, of the result.")
    generations: int = Field(description="Finished generations.")
    asked: int = Field(description="Candidates that its search asked for.")
    from_cache: int = Field(description="Those whose fitness was known.")
    evaluated: int = Field(description="Those that were evaluated for it.")
    epochs: int = Field(description="Epoch of the supernet's training that its job has reached; 0 where another job trained it.")
    seconds: float = Field(description="How long its job has run, over all attempts.")


class StudyFailure(BaseModel):
    """Why a study failed."""

    reason: str = Field(description="Stable reason for programs.", examples=["no_trial_succeeded"])
    message: str = Field(description="What happened, for people.")


class StudySummary(BaseModel):
    """A study in a list."""

    id: str = Field(examples=["s3f9a1c07b2d4"])
    name: str
    user: str = Field(description="Who submitted it, by the token.", examples=["default"])
    state: StudyState
    swept: list[str] = Field(description="Dotted names of the settings that are swept.")
    counts: dict[str, int] = Field(description="How many trials there are, `all`, `done` (over, in whatever way), and by state.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class StudyPage(BaseModel):
    """A page of studies, newest first."""

    items: list[StudySummary]
    next: str | None = Field(description="Pass as `cursor` to get the next page; null on the last one.")


class StudyView(StudySummary):
    """A study with all of its trials side by side."""

    request: StudyRequest
    metric: str = Field(description="What all trials search for, and are compared by.")
    best: int | None = Field(description="Number of the succeeded trial that is best on val.")
    trials: list[TrialView] = Field(description="The trials, in order.")
    failure: StudyFailure | None
    attempts: int = Field(description="Attempts at driving it that failed since it last made progress.")


class ReportView(_FromRow):
    """What a trial had reached at a step."""

    trial: int
    kind: Literal["probe", "fitness"] = Field(
        description="`probe`: mean loss on val, in nats, of the supernet's probed subnets after epoch `step`. `fitness`: best so far after "
        "generation `step`, from 0; more is better."
    )
    step: int
    value: float


class ReportList(BaseModel):
    """All reports of a study's trials, in the order in which they came."""

    items: list[ReportView]
