"""Who wins the finals. Pure functions, no torch."""

import math
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from glora_core.finals.rungs import Leg
from glora_core.search.history import Evaluated
from glora_core.search.noise import lead_within_noise, standard_error


class _Finalist(Protocol):
    @property
    def leg(self) -> Leg | None: ...

    @property
    def fitness(self) -> Evaluated: ...


F = TypeVar("F", bound=_Finalist)


def rank_finalists(found: Iterable[F], examples: int) -> list[F]:
    """All that finals have given, of every rung, best first: what val cannot tell from the best is led by the lower loss.

    None leads that is worse on val than a known method trained from scratch, so the first, who wins, is not.

    Args:
        found: what `play` gave, in its order, which decides what is left open here.
        examples: of the validation split.
    """
    ranked = list(found)
    floor = max((f.fitness.fitness for f in ranked if f.leg is not None and not f.leg.trial.sliced), default=-math.inf)
    return lead_within_noise(ranked, lambda finalist: finalist.fitness, examples, floor)


def asked_for_soup(finalists: Iterable[F], examples: int) -> list[F]:
    """The finalists that val cannot tell from the best, in the order in which a soup takes them up: the winner of the finals first.

    Args:
        finalists: in any order; all were trained alone.
        examples: of the validation split.
    """
    ranked = rank_finalists(sorted(finalists, key=_settled), examples)
    if not ranked:
        return []
    best = min(ranked, key=_settled).fitness
    return [f for f in ranked if f.fitness.fitness >= best.fitness - standard_error(best.accuracy, examples)]


def _settled(finalist: _Finalist) -> tuple[Any, ...]:
    """An order, best on val first, that leaves no tie: a subnet may have been trained in several ways."""
    leg = finalist.leg
    return (finalist.fitness.order, ("", 0) if leg is None else (leg.trial.name, leg.rung))
