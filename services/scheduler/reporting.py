"""A job's result as it is stored and told: what was measured of the winner, the finalists and the baselines, in plain JSON types."""

from collections.abc import Mapping
from typing import Any

from glora_core.configs import config_hash, encode
from glora_core.metrics import UNMEASURED, own_value
from glora_core.search import Evaluated
from services.scheduler.legs import Finalist, trained_alone
from services.scheduler.soups import Soup
from services.store.search_state import Fitness


def winner(found: Finalist | Soup, metric: str) -> dict[str, Any]:
    """What is exported: a finalist with its config, or a soup with its members, each of which has one."""
    if isinstance(found, Finalist):
        return summary(found, metric) | {"config": encode(found.fitness.config)}
    members = [winner(member, metric) for member in found.members]
    return {"source": "soup", "hash": found.digest, "supernet": None, **_on_val(found.fitness, metric), "config": None, "members": members}


def summary(finalist: Finalist, metric: str) -> dict[str, Any]:
    """A finalist or a baseline."""
    return {
        "source": finalist.source,
        "hash": config_hash(finalist.fitness.config),
        "supernet": finalist.supernet_key,
        **_on_val(finalist.fitness, metric),
        **(trained_alone(finalist.leg) if finalist.leg else {}),
    }


def retrained(found: Finalist | Soup, scores: Mapping[str, Fitness], metric: str, examples: int) -> dict[str, Any]:
    """What was exported in the winner's place, trained on train and val together: only test sets can tell what it is worth."""
    keys = [member.supernet_key for member in (found.members if isinstance(found, Soup) else (found,))]
    return {"split": "train+val", "examples": examples, "supernets": keys, **on_tests(scores, metric)}


def on_tests(scores: Mapping[str, Fitness], metric: str) -> dict[str, Any]:
    """Scores on test, None without such a split, and on further test sets by name."""
    test, also = scores.get("test"), {name: _measured(score, metric) for name, score in scores.items() if name != "test"}
    names = ("accuracy", "macro_accuracy", "metric", "loss", "examples")
    own = dict.fromkeys(names) if test is None else _measured(test, metric)
    return {f"test_{name}": value for name, value in own.items()} | {"also_test": also}


def _on_val(fitness: Evaluated, metric: str) -> dict[str, Any]:
    return {
        "parameters": fitness.parameters,
        "val_accuracy": fitness.accuracy,
        "val_macro_accuracy": fitness.macro_accuracy,
        "val_metric": _value(metric, fitness.fitness),
        "val_loss": fitness.loss,
    }


def _measured(score: Fitness, metric: str) -> dict[str, Any]:
    """What was measured on a test set."""
    return {
        "accuracy": score.accuracy,
        "macro_accuracy": score.macro_accuracy,
        "metric": _value(metric, score.fitness),
        "loss": score.loss,
        "examples": score.examples,
    }


def _value(metric: str, fitness: float) -> float | None:
    """The metric's own value, None if it has none."""
    return None if fitness == UNMEASURED else own_value(metric, fitness)
