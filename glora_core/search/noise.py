"""Which of the best is best: among subnets that the validation split cannot tell apart by accuracy. Plain Python."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from glora_core.search.history import Evaluated, rank

T = TypeVar("T")

LUCK = 3.0
"""Standard errors by which the best of a thousand equal subnets looks better than it is (the highest of a thousand normal draws: 3.2)."""


def standard_error(accuracy: float, examples: int) -> float:
    """Of an accuracy measured on so many examples; with one more right and one more wrong answer, so that it is never 0."""
    share = (accuracy * examples + 1) / (examples + 2)
    return math.sqrt(share * (1 - share) / (examples + 2))


def rank_within_noise(history: Iterable[Evaluated], examples: int, floor: float = -math.inf) -> list[Evaluated]:
    """The distinct evaluated subnets, best first, where those within one standard error of the highest fitness are led by the lower loss.

    A hundred subnets that are all right in 190 of 200 answers differ by which answers happen to be asked; the mean
    cross-entropy is the less noisy witness of the two. Equal losses go to fewer parameters.

    Args:
        examples: of the validation split; the standard error is that of the best one's accuracy, whatever the fitness is.
        floor: fitness below which none is moved up, such as a known method's, which the result must not fall behind.
    """
    return lead_within_noise(rank(history), lambda candidate: candidate, examples, floor)


def lead_within_noise(
    ranked: Sequence[T],
    measured: Callable[[T], Evaluated],
    examples: int,
    floor: float = -math.inf,
    chosen: Callable[[T], bool] = lambda candidate: False,
) -> list[T]:
    """The same of anything that has a fitness, in which a subnet may come more than once.

    Args:
        ranked: by fitness, best first; the order among equals.
        measured: the fitness of each.
        examples, floor: as of `rank_within_noise`.
        chosen: whether its fitness is the highest of a search on this split. Beside others, such a one is taken for the best only by
            as much as it leads them beyond `LUCK` standard errors.
    """
    if not ranked:
        return []
    best = measured(ranked[0])
    error = standard_error(best.accuracy, examples)
    others = next((measured(candidate).fitness for candidate in ranked if not chosen(candidate)), best.fitness)
    least = max(floor, max(others, best.fitness - LUCK * error) - error)
    tied = [candidate for candidate in ranked if measured(candidate).fitness >= least]
    return sorted(tied, key=lambda candidate: (measured(candidate).loss, measured(candidate).parameters)) + list(ranked[len(tied) :])
