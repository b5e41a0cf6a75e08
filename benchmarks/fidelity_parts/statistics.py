"""How well the scores inside a supernet stand for those of subnets trained alone. Plain numbers, no torch."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glora_core.sampling import stream

CLOSE = 3.0
"""Points that a subnet inside may lack, to be called close."""
RESAMPLES = 1000
_BOOTSTRAP = 105


@dataclass(frozen=True)
class Scores:
    """Of one subnet: accuracies, 0–1, and mean cross-entropy in nats."""

    val: float
    val_loss: float
    test: float


@dataclass(frozen=True)
class Tau:
    """Kendall's tau-b, and the percentile bootstrap's 95 % interval over subnets; not numbers where one side is all alike."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fidelity:
    """What one supernet comes to.

    Attributes:
        gap_val, gap_test: medians of alone minus inside, in points.
        close: share of subnets that lack at most `CLOSE` points of `test` inside.
        tau: between the search's order on `val` inside, and accuracy on `test` alone.
    """

    gap_val: float
    gap_test: float
    close: float
    tau: Tau


def fidelity(alone: Sequence[Scores], inside: Sequence[Scores]) -> Fidelity:
    """Compare the scores of the same subnets, one at least, in the same order."""
    val = [100 * (a.val - i.val) for a, i in zip(alone, inside, strict=True)]
    test = [100 * (a.test - i.test) for a, i in zip(alone, inside, strict=True)]
    close = statistics.mean(gap <= CLOSE + 1e-9 for gap in test)
    return Fidelity(statistics.median(val), statistics.median(test), close, tau(places(inside), [a.test for a in alone]))


def places(scores: Sequence[Scores]) -> list[float]:
    """Places in the search's order, highest for the best: by accuracy on `val`, ties by loss, and equals on one place."""
    fitness = [(s.val, -s.val_loss) for s in scores]
    order = sorted(set(fitness))
    return [float(order.index(f)) for f in fitness]


def tau(first: Sequence[float], second: Sequence[float]) -> Tau:
    """Of two measures of the same subnets; resamples that have no tau are left out of the interval."""
    count = len(first)
    drawn = stream(0, _BOOTSTRAP).integers(count, size=(RESAMPLES, count))
    value, resampled = float(_taus(first, second, np.arange(count)[None])[0]), _taus(first, second, drawn)
    known = resampled[np.isfinite(resampled)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return Tau(value, float(low), float(high))


def _taus(first: Sequence[float], second: Sequence[float], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Tau-b of each resample, `rows` (resamples, subnets); not a number where it has none."""
    signs = [np.sign(np.subtract.outer(values, values)) for values in (first, second)]
    one, other = (sign[rows[:, :, None], rows[:, None, :]] for sign in signs)
    agreed, ordered = (one * other).sum((1, 2)), np.sqrt((one**2).sum((1, 2)) * (other**2).sum((1, 2)))
    found: NDArray[np.float64] = np.divide(agreed, ordered, out=np.full(len(rows), np.nan), where=ordered > 0)
    return found
