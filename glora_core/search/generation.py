"""What all strategies share: what they see of a search, how they say what they want, and how a generation is filled.

A strategy answers a `Turn` with a `Plan`: what makes how many candidates. Filling a population from it, with subnets not
seen before as far as there are any, and opening a search with the known methods, is done here once for all. No torch.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from glora_core.methods import seeds_within
from glora_core.sampling import FeasibleSampler
from glora_core.search.history import Evaluated, Proposal, rank
from glora_core.search.settings import SearchSettings

Maker = Callable[[], Proposal]
Plan = Sequence[tuple[Maker, int]]
"""What makes how many candidates, in order."""

_TRIES = 8
_ENUMERABLE = 4096


@dataclass(frozen=True)
class Turn:
    """What a strategy sees of a search.

    Attributes:
        sampler: of the space, under the budget.
        settings: see `SearchSettings`.
        history: every subnet evaluated so far, once, by generation and then by hash.
        rng: the generation's own stream.
    """

    sampler: FeasibleSampler
    settings: SearchSettings
    history: tuple[Evaluated, ...]
    rng: np.random.Generator

    @cached_property
    def ranked(self) -> list[Evaluated]:
        """Those of the history that keep the budget, best first."""
        return rank(e for e in self.history if e.parameters <= self.sampler.budget)

    def random(self) -> Proposal:
        """A subnet drawn uniformly from those that keep the budget."""
        return Proposal(self.sampler.sample(self.rng), "random")


def by_age(history: Iterable[Evaluated]) -> tuple[Evaluated, ...]:
    """The distinct subnets of a history, oldest first; those of one generation by hash, so that the given order is immaterial."""
    oldest: dict[str, Evaluated] = {}
    for evaluated in history:
        known = oldest.get(evaluated.digest)
        if known is None or evaluated.generation < known.generation:
            oldest[evaluated.digest] = evaluated
    return tuple(e for _, _, e in sorted((e.generation, digest, e) for digest, e in oldest.items()))


def opening(turn: Turn) -> Plan:
    """The plan of a search that nothing is known of yet: the known methods within the budget if wanted, the rest random."""
    wanted = turn.settings.seed_known_methods
    known = list(dict.fromkeys(seeds_within(turn.sampler.space, turn.sampler.budget))) if wanted else []
    return [(_constant(Proposal(config, "seed")), 1) for config in known]


def fill(turn: Turn, plan: Plan) -> list[Proposal]:
    """A population by a plan, random subnets for what the plan leaves open.

    Subnets never seen are preferred; where a maker gives none in a few tries, it repeats one, unless the space is small
    enough to look for one that is new, or at least new to this generation.
    """
    gathered = _Gathering(turn)
    for maker, count in [*plan, (turn.random, turn.settings.population)]:
        for _ in range(min(count, turn.settings.population - len(gathered.chosen))):
            gathered.add(maker)
    return gathered.chosen


class _Gathering:
    """A population while it is filled."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.chosen: list[Proposal] = []
        self._seen = {e.digest for e in turn.history}
        self._here: set[str] = set()

    def add(self, maker: Maker) -> None:
        proposal = maker()
        for _ in range(_TRIES - 1):
            if proposal.digest not in self._seen:
                break
            proposal = maker()
        else:
            proposal = self._unseen() or proposal
        self.chosen.append(proposal)
        self._seen.add(proposal.digest)
        self._here.add(proposal.digest)

    def _unseen(self) -> Proposal | None:
        for avoided in (self._seen, self._here):
            left = [proposal for proposal in self._all if proposal.digest not in avoided]
            if left:
                return left[int(self._turn.rng.integers(len(left)))]
        return None

    @cached_property
    def _all(self) -> list[Proposal]:
        """Every subnet within the budget, of a space small enough to list them."""
        space, budget = self._turn.sampler.space, self._turn.sampler.budget
        if space.size > _ENUMERABLE:
            return []
        return [Proposal(config, "random") for config in itertools.product(*space.layer_configs) if space.parameters(config) <= budget]


def _constant(proposal: Proposal) -> Maker:
    return lambda: proposal
