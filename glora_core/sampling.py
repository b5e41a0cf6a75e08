"""Random subnets that satisfy the budget by construction: no rejection, no penalty, no loop that may not end.

`FeasibleSampler` counts, by dynamic programming over trainable parameters, how many ways there are to complete a
subnet from each layer onwards, and draws layer after layer in proportion: uniform over the feasible configs at the
stated resolution. Plain numpy, no torch.
"""

import numpy as np
from numpy.typing import NDArray

from glora_core.space import SearchSpace, SubnetConfig

MAX_BINS = 4096


def stream(seed: int, *counters: int) -> np.random.Generator:
    """A counter-based generator (Philox): equal arguments give equal streams, whatever was drawn before."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *counters])))


class FeasibleSampler:
    """Uniform sampling of subnet configs with at most `budget` trainable parameters.

    Args:
        space: the search space.
        budget: upper bound, in trainable parameters.
        max_bins: resolution. Costs are counted in units of ceil(slack / max_bins) parameters above each layer's
            cheapest config and rounded up, so that a drawn config never exceeds the budget; with a slack (budget minus
            the smallest subnet) of at most `max_bins` the unit is one parameter and the draw is exactly uniform.

    Raises:
        BudgetInfeasible: no config fits.
    """

    def __init__(self, space: SearchSpace, budget: int, max_bins: int = MAX_BINS) -> None:
        space.check_budget(budget)
        self.space, self.budget = space, budget
        slack = min(budget, space.maximum) - space.minimum
        self.unit = max(1, -(-slack // max_bins))
        self._bins = slack // self.unit
        self._groups = [_group(costs, self.unit) for costs in space.costs]
        self._log_ways = self._count()

    def _count(self) -> list[NDArray[np.float64]]:
        """`[layer][b]`: log of the number of ways to fill the layers from `layer` on with at most b units."""
        ways = [np.zeros(self._bins + 1)]
        for groups in reversed(self._groups):
            total = np.full(self._bins + 1, -np.inf)
            for units, members in groups.items():
                if units <= self._bins:
                    shifted = ways[-1][: self._bins + 1 - units] + np.log(len(members))
                    total[units:] = np.logaddexp(total[units:], shifted)
            ways.append(total)
        return ways[::-1]

    def sample(self, rng: np.random.Generator) -> SubnetConfig:
        """One feasible subnet config. Takes time linear in the number of layers; never retries."""
        left, drawn = self._bins, []
        for layer, groups in enumerate(self._groups):
            units = [u for u in groups if u <= left]
            logs = np.array([np.log(len(groups[u])) + self._log_ways[layer + 1][left - u] for u in units])
            weights = np.exp(logs - logs.max())
            chosen = units[int(rng.choice(len(units), p=weights / weights.sum()))]
            drawn.append(groups[chosen][int(rng.integers(len(groups[chosen])))])
            left -= chosen
        return tuple(self.space.layer_configs[index] for index in drawn)


def _group(costs: tuple[int, ...], unit: int) -> dict[int, list[int]]:
    """Indices of a layer's configs by cost above its cheapest, in units rounded up."""
    cheapest, groups = min(costs), dict[int, list[int]]()
    for index, cost in enumerate(costs):
        groups.setdefault(-(-(cost - cheapest) // unit), []).append(index)
    return dict(sorted(groups.items()))
