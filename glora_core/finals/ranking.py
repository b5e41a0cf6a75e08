"""Who wins the finals. Pure functions, no torch."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from glora_core.finals.rungs import Leg
from glora_core.search.history import Evaluated
from glora_core.search.noise import lead_within_noise


class _Finalist(Protocol):
    @property
    def leg(self) -> Leg | None: ...

    @property
    def fitness(self) -> Evaluated: ...


F = TypeVar("F", bound=_Finalist)


def rank_finalists(found: Iterable[F], examples: int) -> list[F]:
    """All that finals have given, of every rung, best first: what val cannot tell from the best is led by the lower loss.

    Subnets as they stand in the supernet were chosen on this very val from all that the search has scored; what was trained alone since
    is held to the best of its own kind, unless luck cannot explain their lead (see `lead_within_noise`).

    None leads that is worse on val than a known method trained alone, so the first, who wins, is not.

    Args:
        found: what `play` gave, and what stands as it is in the supernet; in any order.
        examples: of the validation split.
    """
    ranked = sorted(found, key=_settled)
    floor = max((f.fitness.fitness for f in ranked if f.leg is not None and f.leg.trial.known), default=-math.inf)
    return lead_within_noise(ranked, lambda finalist: finalist.fitness, examples, floor, chosen=lambda finalist: _rung(finalist) == 0)


def asked_for_soup(finalists: Iterable[F], examples: int) -> list[F]:
    """The finalists that a soup is made of, in the order in which it takes them up: the winner of the finals first, then by loss.

    Beside the winner these are all that come from slices of one supernet, each trial as far as it was trained, however they score:
    a rate that was too high for one subnet alone makes members that differ more, and so an average that gains more. Beside a winner
    of a later rung than the first, which has far more behind it, only those that were trained for at least as long.

    Args:
        finalists: in any order.
        examples: of the validation split.
    """
    ranked = rank_finalists(finalists, examples)
    furthest = {f.leg.trial.name: f.leg.rung for f in sorted(ranked, key=_rung) if f.leg is not None}
    winner = ranked[0].leg if ranked else None
    least = winner.trained if winner is not None and winner.rung > 1 else 0
    sliced = [f for f in ranked[1:] if f.leg is not None and f.leg.sliced and f.leg.rung == furthest[f.leg.trial.name]]
    others = [f for f in sliced if f.leg is not None and f.leg.trained >= least]
    return ranked[:1] + sorted(others, key=lambda f: f.fitness.loss)


def _rung(finalist: _Finalist) -> int:
    return 0 if finalist.leg is None else finalist.leg.rung


def one_basin(asked: Sequence[_Finalist]) -> list[int]:
    """Places of those of `asked_for_soup` that come from slices of the supernet, whose average is worth a try as a whole."""
    return [place for place, f in enumerate(asked) if f.leg is not None and f.leg.sliced]


def _settled(finalist: _Finalist) -> tuple[Any, ...]:
    """An order, best on val first, that leaves no tie: a subnet may have been trained in several ways."""
    leg = finalist.leg
    return (finalist.fitness.order, ("", 0) if leg is None else (leg.trial.name, leg.rung))
