"""What a request leaves out, filled in by its effort before anything is checked or stored.

A stored request therefore says all of its numbers, whatever an effort means in a later version. Imports neither torch nor ray.
"""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from glora_core.effort import DEFAULT, EFFORTS
from services.job_settings import Strict, TrainingRequest


def with_effort(given: Mapping[str, Any]) -> dict[str, Any]:
    """A request's fields with the numbers of its effort where it names none; those of finals as `Effort.of` has them.

    What is not of the right form is left as it is, for the request's own checks to refuse.
    """
    name = given.get("effort", DEFAULT)
    effort = EFFORTS.get(name) if isinstance(name, str) else None
    if effort is None:
        return dict(given)
    training = _filled(given.get("training", {}), {"epochs": effort.epochs, "learning_rate": effort.learning_rate})
    search = _filled(given.get("search", {}), {"population": effort.population, "generations": effort.generations})
    try:
        asked = TrainingRequest.model_validate(training)
    except ValidationError:
        return dict(given)
    scaled = effort.of(asked.epochs, asked.learning_rate)
    finals = _filled(
        given.get("finals", {}),
        {
            "candidates": scaled.candidates,
            "learning_rates": list(scaled.learning_rates),
            "epochs": list(scaled.finals),
            "scratch_epochs": list(scaled.scratch_epochs),
            "teachers": scaled.teachers,
            "standing": scaled.standing,
            "cycles": scaled.cycles,
        },
        nullable=("learning_rates", "epochs", "scratch_epochs"),
    )
    return {**given, "training": training, "search": search, "finals": finals}


def without_effort(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored request without the numbers that an effort gives, so that another effort can give them."""
    numbers = {
        "training": {"epochs", "learning_rate"},
        "search": {"population", "generations"},
        "finals": {"candidates", "learning_rates", "epochs", "scratch_epochs", "teachers", "standing", "cycles"},
    }
    parts = {part: {k: v for k, v in stored.get(part, {}).items() if k not in names} for part, names in numbers.items()}
    return {**stored, **parts}


def with_loose_finals(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored request without the numbers of its finals that follow from its training, where they are what its effort gives.

    So that they follow from another training, unless someone has said them.
    """
    finals = stored.get("finals", {})
    loose = {k: v for k, v in finals.items() if k not in ("learning_rates", "epochs", "scratch_epochs")}
    usual = with_effort({**stored, "finals": loose})["finals"]
    return {**stored, "finals": {k: v for k, v in finals.items() if k in loose or v != usual[k]}}


def _filled(part: Any, numbers: Mapping[str, Any], nullable: Collection[str] = ()) -> Any:
    """A part of a request with numbers where it has none; where null is as good as none."""
    said = part.model_dump(exclude_unset=True) if isinstance(part, Strict) else part
    if not isinstance(said, Mapping):
        return said
    return {**said, **{name: value for name, value in numbers.items() if name not in said or (said[name] is None and name in nullable)}}
