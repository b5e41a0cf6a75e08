"""Which of the best is best: among subnets that the validation split cannot tell apart by accuracy. Plain Python."""

import math
from collections.abc import Iterable

from glora_core.search.history import Evaluated, rank


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
    ranked = rank(history)
    if not ranked:
        return []
    least = max(floor, ranked[0].fitness - standard_error(ranked[0].accuracy, examples))
    tied = [candidate for candidate in ranked if candidate.fitness >= least]
    return sorted(tied, key=lambda candidate: (candidate.loss, candidate.parameters, candidate.order)) + ranked[len(tied) :]
