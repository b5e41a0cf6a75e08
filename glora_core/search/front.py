"""Which evaluated subnets no other one beats in everything, and how to order subnets by two objectives at once. Plain Python."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from glora_core.search.history import Evaluated

T = TypeVar("T")


def pareto_front(items: Sequence[T], objectives: Callable[[T], Sequence[float]]) -> list[T]:
    """The items that none dominates, in their order; of several with the same objectives the first.

    Args:
        objectives: of an item, as many for each, more of each being better.
    """
    found = {place: tuple(objectives(item)) for place, item in enumerate(items)}
    kept: list[int] = []
    for place in sorted(found, key=lambda place: (*(-value for value in found[place]), place)):  # whoever dominates comes before
        if not any(all(have >= value for have, value in zip(found[other], found[place], strict=True)) for other in kept):
            kept.append(place)
    return [items[place] for place in sorted(kept)]


def by_both(ranked: Sequence[Evaluated]) -> list[Evaluated]:
    """Subnets by fitness and accuracy on the second split at once: first those that none beats in both, then the others.

    Among each, by the sum of their places in the two orders, which does not depend on how the fitness is scaled.

    Args:
        ranked: by fitness, best first, each with a `second`.
    """
    seconds = sorted(ranked, key=lambda one: -_second(one))
    place = {one.digest: number for number, one in enumerate(ranked)}
    second = {one.digest: number for number, one in enumerate(seconds)}
    front = {one.digest for one in pareto_front(ranked, lambda one: (one.fitness, _second(one)))}
    return sorted(ranked, key=lambda one: (one.digest not in front, place[one.digest] + second[one.digest], place[one.digest]))


def _second(one: Evaluated) -> float:
    assert one.second is not None
    return one.second
