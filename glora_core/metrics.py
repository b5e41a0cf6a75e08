"""Which metrics may be a fitness, by name: accuracy, macro accuracy, and those of torchmetrics that give one number.

A table and its checks alone, so that a request can be refused by a process without torch; `glora_core.evaluation`
measures. A test compares the table with what torchmetrics offers. Plain Python.
"""

import re
import sys
from collections.abc import Mapping
from difflib import get_close_matches

from glora_core.errors import ConfigInvalid

ACCURACY, MACRO_ACCURACY = "accuracy", "macro-accuracy"
OWN = (ACCURACY, MACRO_ACCURACY)
"""Metrics that every score has."""

SIGNS: Mapping[str, int] = {
    "MulticlassAUROC": 1,
    "MulticlassAccuracy": 1,
    "MulticlassAveragePrecision": 1,
    "MulticlassCalibrationError": -1,
    "MulticlassCohenKappa": 1,
    "MulticlassEER": -1,
    "MulticlassF1Score": 1,
    "MulticlassHammingDistance": -1,
    "MulticlassHingeLoss": -1,
    "MulticlassJaccardIndex": 1,
    "MulticlassMatthewsCorrCoef": 1,
    "MulticlassNegativePredictiveValue": 1,
    "MulticlassPrecision": 1,
    "MulticlassRecall": 1,
    "MulticlassSpecificity": 1,
}
"""torchmetrics' classes that may be a fitness; -1 for those of which less is better, whose fitness is minus their value."""

METRIC_NAMES = (*OWN, *SIGNS)

UNMEASURED = -sys.float_info.max
"""The fitness of a model that has no value of the metric; the worst, and still a number in JSON and SQL."""

_CURVE = "is not a single number"
_ARGUMENT = "needs an argument that has no usual value"
REFUSED: Mapping[str, str] = {
    "MulticlassConfusionMatrix": _CURVE,
    "MulticlassPrecisionRecallCurve": _CURVE,
    "MulticlassROC": _CURVE,
    "MulticlassStatScores": _CURVE,
    "MulticlassFBetaScore": _ARGUMENT,
    "MulticlassPrecisionAtFixedRecall": _ARGUMENT,
    "MulticlassRecallAtFixedPrecision": _ARGUMENT,
    "MulticlassSensitivityAtSpecificity": _ARGUMENT,
    "MulticlassSpecificityAtSensitivity": _ARGUMENT,
    "MulticlassExactMatch": "needs several answers per example",
    "MulticlassLogAUC": "cannot be computed on a split of one class",
}
"""Why torchmetrics' other multiclass classes cannot be a fitness."""

_CLASSES = range(2, 4097)
"""Most of torchmetrics' metrics count pairs of classes: 128 MiB at the most, with each batch."""


def check_metric(name: str, classes: int | None = None) -> str:
    """The name of a metric, if it may be a fitness, and with so many classes where their number is known.

    Raises:
        ConfigInvalid: it may not; the message says why, and which names come near.
    """
    if name in REFUSED:
        raise ConfigInvalid(f"metric {name!r} {REFUSED[name]}; accepted: {', '.join(METRIC_NAMES)}")
    if name not in METRIC_NAMES:
        near = _near(name)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigInvalid(f"metric {name[:80]!r} is unknown; {hint}accepted: {', '.join(METRIC_NAMES)}")
    if classes is not None and name not in OWN and classes not in _CLASSES:
        raise ConfigInvalid(
            f"metric {name!r} takes {_CLASSES.start:,} to {_CLASSES.stop - 1:,} classes, here are {classes:,}; accepted: {' or '.join(OWN)}"
        )
    return name


def own_value(name: str, fitness: float) -> float:
    """A metric's value as torchmetrics gives it, from the fitness, of which more is always better."""
    return SIGNS.get(name, 1) * fitness


def _near(name: str) -> list[str]:
    """Up to three accepted names that begin alike or are spelt alike."""
    plain, asked = {_plain(known): known for known in reversed(METRIC_NAMES)}, _plain(name[:80])
    alike = [known for known in plain if asked and known.startswith(asked)] + get_close_matches(asked, plain, n=3, cutoff=0.5)
    return [plain[known] for known in dict.fromkeys(alike)][:3]


def _plain(name: str) -> str:
    """Without what is easily written otherwise: case, punctuation and the prefix."""
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("multiclass")
