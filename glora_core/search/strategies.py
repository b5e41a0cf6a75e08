"""The strategies by name, and the one way to ask any of them for the next population."""

from collections.abc import Callable, Iterable, Mapping

from glora_core.sampling import FeasibleSampler, stream
from glora_core.search.evolution import evolution
from glora_core.search.generation import Plan, Turn, by_age, fill, opening
from glora_core.search.history import Evaluated, Proposal
from glora_core.search.nsga2 import nsga2
from glora_core.search.random_search import random_search
from glora_core.search.regularized import regularized_evolution
from glora_core.search.settings import SearchSettings
from glora_core.search.surrogate import surrogate
from glora_core.space import SearchSpace

Strategy = Callable[[Turn], Plan]

STRATEGIES: Mapping[str, Strategy] = {
    "evolution": evolution,
    "random": random_search,
    "nsga2": nsga2,
    "regularized-evolution": regularized_evolution,
    "surrogate": surrogate,
}

_PURPOSE = 2
"""Of the random streams of a search, so that none is shared with training."""


def propose(
    space: SearchSpace,
    budget: int,
    settings: SearchSettings,
    history: Iterable[Evaluated],
    generation: int,
    seed: int,
    sampler: FeasibleSampler | None = None,
) -> list[Proposal]:
    """The population of a generation: a pure function of its arguments.

    Args:
        space: the search space.
        budget: upper bound on a subnet's trainable parameters.
        settings: which strategy, and its knobs.
        history: every evaluation of the generations before this one, in any order; `Evaluated.generation` tells age.
        generation: from 0.
        seed: of the search.
        sampler: `FeasibleSampler(space, budget)`, where the caller has one already.

    Returns:
        `settings.population` proposals within the budget. New subnets are preferred to seen ones; in a space (almost)
        exhausted, candidates repeat. While nothing within the budget is evaluated, the known methods that fit open the
        search if the settings want them, and the rest is random, whatever the strategy.

    Raises:
        BudgetInfeasible: no subnet has so few parameters.
        ConfigInvalid: a library that the strategy needs is not installed.
    """
    turn = Turn(sampler or FeasibleSampler(space, budget), settings, by_age(history), stream(seed, _PURPOSE, generation))
    plan = STRATEGIES[settings.strategy](turn) if turn.ranked else opening(turn)
    return fill(turn, plan)
