"""The trials of a study: all combinations of values, and draws from ranges, as whole job requests. Pure functions of the request.

A draw is a function of the study's seed, the setting's name and the draw's number (Philox), and the same for every combination of
values: so that these are compared on equal terms, and share supernets where only the search differs.
"""

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args
from zlib import crc32

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from glora_core.sampling import stream
from services.job_request import JobRequest
from services.study_request import Range, StudyRequest, Values

_REFUSED = ("name", "priority", "max_hours", "search.metric")
_DIGITS = 4
"""Significant digits of a drawn number, so that a request can be read."""


class SweepInvalid(ValueError):
    """A sweep that cannot be made; `field` is the path of what is wrong with it in the request."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Drawn:
    """A trial before it is checked: its swept settings by dotted names, and the job request that they are put into, as sent."""

    settings: dict[str, Any]
    base: Mapping[str, Any]

    @property
    def request(self) -> dict[str, Any]:
        """The trial's job request. Raises SweepInvalid if a part of it is no object."""
        return with_settings(self.base, self.settings)

    def __str__(self) -> str:
        return ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.settings.items())


def draw(request: StudyRequest) -> list[Drawn]:
    """All trials of a study, in the order of their numbers: for each draw, the last setting's values change fastest. Equal ones come once.

    Raises:
        SweepInvalid: a name is no setting that can be swept, a range is given for something else than a number, or there are too many.
    """
    fields = {name: _field(name) for name in request.sweep}
    for name, asked in request.sweep.items():
        if isinstance(asked, Range) and not _takes(fields[name], int, float):
            raise SweepInvalid(f"sweep.{name}", f"{name} is no number, so no range of it can be drawn; accepted is {{'values': […]}}")
    grid = {name: asked.values for name, asked in request.sweep.items() if isinstance(asked, Values)}
    cells = math.prod(len(values) for values in grid.values())
    if cells * request.samples > request.max_trials:
        message = f"the sweep has {cells * request.samples:,} trials, max_trials is {request.max_trials}; leave out values or samples"
        raise SweepInvalid("max_trials", message)
    found = dict[str, dict[str, Any]]()
    for number in range(request.samples):
        drawn = {
            name: _drawn(asked, request.seed, name, number, whole=not _takes(fields[name], float))
            for name, asked in request.sweep.items()
            if isinstance(asked, Range)
        }
        for cell in itertools.product(*grid.values()):
            given = dict(zip(grid, cell, strict=True)) | drawn
            settings = {name: given[name] for name in request.sweep}
            found.setdefault(json.dumps(settings, sort_keys=True), settings)
    return [Drawn(settings, request.base) for settings in found.values()]


def with_settings(base: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A job request with settings put in by their dotted names. Raises SweepInvalid if a part of it is no object."""
    request = dict(base)
    for name, value in settings.items():
        part, _, field = name.rpartition(".")
        if not part:
            request[field] = value
            continue
        place = request.get(part, {})
        if not isinstance(place, dict):
            raise SweepInvalid(f"base.{part}", f"{part} is no object, so {name} cannot be put into it")
        request[part] = place | {field: value}
    return request


def _field(name: str) -> FieldInfo:
    """The field of a job request that a dotted name names. Raises SweepInvalid."""
    model: type[BaseModel] = JobRequest
    *parts, last = name.split(".")
    for part in parts:
        found = model.model_fields.get(part)
        if found is None or not (isinstance(found.annotation, type) and issubclass(found.annotation, BaseModel)):
            raise SweepInvalid(f"sweep.{name}", f"a job request has no part {part!r}; {_ACCEPTED}")
        model = found.annotation
    field = model.model_fields.get(last)
    if field is None or name in _REFUSED or (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
        raise SweepInvalid(f"sweep.{name}", f"{name} is no setting that can be swept; {_ACCEPTED}")
    return field


_ACCEPTED = "accepted are fields of a job request by dotted names, such as search.population, training.learning_rate or seed"


def _takes(field: FieldInfo, *kinds: type) -> bool:
    """Whether a field's value may be of one of these kinds."""
    return any(kind in kinds for kind in (field.annotation, *get_args(field.annotation)))


def _drawn(asked: Range, seed: int, name: str, number: int, *, whole: bool) -> float | int:
    """The draw of a number; of whole ones both ends come as often as any other. Raises SweepInvalid if there is none between the ends."""
    share = float(stream(seed, crc32(name.encode()), number).random())
    low, high = (math.ceil(asked.low), math.floor(asked.high)) if whole else (asked.low, asked.high)
    if low > high:
        raise SweepInvalid(f"sweep.{name}", f"{name} takes whole numbers, and there is none from {asked.low:g} to {asked.high:g}")
    value = low * (high / low) ** share if asked.log else low + share * (high - low + whole)
    rounded = (round(value) if asked.log else math.floor(value)) if whole else float(f"{value:.{_DIGITS}g}")
    return min(max(rounded, low), high)
