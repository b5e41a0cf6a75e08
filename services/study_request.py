"""What a study asks for: a job request, and which of its settings are swept over which values. Pydantic at the edge.

`services.study_points` draws the trials. Imports neither torch nor ray.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from services.job_request import Line
from services.job_settings import Strict

MOST_TRIALS = 500
_DEEPEST = 20
"""Levels of a job request, with room to spare."""


class Values(Strict):
    """Each of these values: all of them, with all values of the other settings that have them (a grid)."""

    values: list[Any] = Field(min_length=1, max_length=MOST_TRIALS, description="Values as in a job request.", examples=[[20, 50]])


class Range(Strict):
    """Numbers drawn at random between two ends, rounded to whole ones where the setting takes no others."""

    low: float = Field(ge=-1e18, le=1e18, allow_inf_nan=False, description="Least value.")
    high: float = Field(ge=-1e18, le=1e18, allow_inf_nan=False, description="Greatest value.")
    log: bool = Field(False, description="Drawn uniformly in the logarithm, so that each power of ten comes as often as any other.")

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; accepted is low below high")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}; with `log` it must be above 0")
        return self


def _kind(asked: Any) -> str:
    """Which of the two is meant, so that a mistake is told of that one alone."""
    return "values" if isinstance(asked, Values) or (isinstance(asked, dict) and "values" in asked) else "range"


Swept = Annotated[Annotated[Values, Tag("values")] | Annotated[Range, Tag("range")], Discriminator(_kind)]


class EarlyStop(Strict):
    """Whether the training of trials that do worse than the others is stopped."""

    rule: Literal["none", "asha"] = Field(
        "none",
        description="`asha`: asynchronous successive halving (arXiv 1810.05934) on the mean loss on val of the subnets that are "
        "probed along a supernet's training. Only where settings of `training` are swept.",
    )
    grace_epochs: int = Field(
        10, ge=1, le=10_000, description="Epochs that every trial is given; then come rungs, each so many times later."
    )
    reduction_factor: float = Field(
        3.0, ge=1.1, le=100, description="At a rung, a trial goes on that is among the best 1/so many of those that have come there."
    )


Path = Annotated[str, Field(pattern=r"^[a-z][a-z_]*(\.[a-z][a-z_]*)?$", max_length=80)]


class StudyRequest(Strict):
    """One study: a sweep of a job's settings, each trial a job of its own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "population",
                    "base": {
                        "backbone": {"name": "vit_tiny_patch16_224.augreg_in21k"},
                        "data": {"path": "/data/flowers"},
                        "budget": "100k",
                        "finals": {"mode": "off"},
                    },
                    "sweep": {"search.population": {"values": [20, 50, 100]}, "search.mutation_probability": {"low": 0.05, "high": 0.5}},
                    "samples": 4,
                }
            ]
        }
    )

    name: Line = Field("", max_length=120, description="Name for humans; the data folder's name if empty.")
    base: dict[str, Any] = Field(description="A job request, as `POST /v1/jobs` takes it; what is swept may be left out.")
    sweep: dict[Path, Swept] = Field(
        min_length=1,
        max_length=20,
        description="By dotted names of a request's fields, such as `search.population`, `training.learning_rate`, `budget` or `seed`: "
        "values, or a range. Not `name`, `priority`, `max_hours`, nor `search.metric`, by which trials are compared.",
        examples=[{"search.population": {"values": [20, 50]}, "search.mutation_probability": {"low": 0.05, "high": 0.5}}],
    )
    samples: int = Field(
        1, ge=1, le=MOST_TRIALS, description="Draws from the ranges, each combined with all values; 1 where there is no range."
    )
    max_trials: int = Field(50, ge=1, le=MOST_TRIALS, description="A sweep of more trials than this is refused.")
    concurrency: int = Field(
        4,
        ge=1,
        le=64,
        description="Trials that are jobs in the queue, or run, at once, as far as the service allows; schedulers say how many run.",
    )
    early_stop: EarlyStop = EarlyStop()
    seed: int = Field(0, ge=0, lt=2**63, description="Of the draws from ranges; jobs have their own.")

    @field_validator("base")
    @classmethod
    def _can_be_stored(cls, base: dict[str, Any]) -> dict[str, Any]:
        if _depth(base) > _DEEPEST:
            raise ValueError("it is nested too deep; accepted is a job request, as `POST /v1/jobs` takes it")
        try:
            json.dumps(base, ensure_ascii=False).encode()
        except UnicodeError as error:
            raise ValueError("it has text that is not Unicode; accepted is what UTF-8 can write") from error
        return base

    @model_validator(mode="after")
    def _consistent(self) -> "StudyRequest":
        if self.samples > 1 and not any(isinstance(asked, Range) for asked in self.sweep.values()):
            raise ValueError(f"samples is {self.samples}, but no setting is swept over a range; accepted is 1, or a range of low and high")
        if self.early_stop.rule == "asha":
            self._check_early_stop()
        return self

    def _check_early_stop(self) -> None:
        if not any(path.startswith("training.") for path in self.sweep):
            raise ValueError("early_stop asha compares trainings; accepted where a setting of `training` is swept, such as training.policy")
        unequal = sorted({"training.epochs", "effort", "data.path"} & set(self.sweep))
        if unequal:
            raise ValueError(
                f"early_stop asha compares trainings of equal length on the same data; {', '.join(unequal)} cannot be swept with it"
            )


def _depth(value: Any) -> int:
    """How many lists and objects lie in each other."""
    level, depth = [value], 0
    while inner := [part for part in level if isinstance(part, dict | list)]:
        level = [item for part in inner for item in (part.values() if isinstance(part, dict) else part)]
        depth += 1
    return depth
