"""Random subnets that satisfy the budget by construction: no rejection, no penalty, no loop that may not end.

`FeasibleSampler` counts, by dynamic programming over trainable parameters, how many ways there are to complete a
subnet from each layer onwards, and draws layer after layer in proportion: uniform over the feasible configs at the
stated resolution. The same counting serves the repair of children in a search: redrawing some layers of a config, and
mixing two configs. Plain numpy, no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from glora_core.checks import check_whole
from glora_core.configs import SubnetConfig
from glora_core.space import SearchSpace, layer_parameters

MAX_BINS = 4096
_MAX_TABLES = 2048
_Ways = NDArray[np.float64]


def stream(seed: int, *counters: int) -> np.random.Generator:
    """A counter-based generator (Philox): equal arguments give equal streams, whatever was drawn before.

    Raises:
        ConfigInvalid: the seed is no integer of at least 0.
    """
    check_whole("seed", seed, 0)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *counters])))


@dataclass(frozen=True, eq=False)
class _Options:
    """What one layer may become: indices of options by their size in units above the smallest."""

    units: NDArray[np.int64]
    members: tuple[tuple[int, ...], ...]
    counts: NDArray[np.float64]

    @staticmethod
    def of(costs: Sequence[int], unit: int) -> "_Options":
        cheapest, groups = min(costs), dict[int, list[int]]()
        for index, cost in enumerate(costs):
            groups.setdefault(-(-(cost - cheapest) // unit), []).append(index)
        ordered = sorted(groups.items())
        members = tuple(tuple(found) for _, found in ordered)
        return _Options(np.array([u for u, _ in ordered]), members, np.array([float(len(found)) for found in members]))


@lru_cache(maxsize=16_384)
def _options_of(costs: tuple[int, ...], unit: int) -> _Options:
    """Two parents' sizes of a layer are a pair that was met before, more often than not."""
    return _Options.of(costs, unit)


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
        ConfigInvalid: the budget is no integer.
    """

    def __init__(self, space: SearchSpace, budget: int, max_bins: int = MAX_BINS) -> None:
        space.check_budget(budget)
        self.space, self.budget = space, int(budget)
        self._slack = min(self.budget, space.maximum) - space.minimum
        self.unit = max(1, -(-self._slack // max_bins))
        self._bins = self._slack // self.unit
        self._cheapest = [min(costs) for costs in space.costs]
        kinds = {id(costs): costs for costs in space.costs}
        self._options = [_Options.of(costs, self.unit) for costs in kinds.values()]
        self._kind = [list(kinds).index(id(costs)) for costs in space.costs]
        self._tables: dict[tuple[int, ...], _Ways] = {}

    def sample(self, rng: np.random.Generator) -> SubnetConfig:
        """One feasible subnet config. Takes time linear in the number of layers; never retries."""
        return self._draw(self.space.extreme(largest=False), range(len(self._kind)), self._bins, rng)

    def redraw(self, config: SubnetConfig, layers: Sequence[int], rng: np.random.Generator) -> SubnetConfig:
        """The config with the given layers drawn anew, uniformly over all ways that keep the budget.

        `config` must keep it itself; then there is always a way, since a layer's cheapest config takes no units.
        """
        left = self.budget - self.space.parameters(config)
        for layer in layers:
            shape = self.space.layers[layer]
            left += layer_parameters(config[layer].code, shape.in_features, shape.out_features) - self._cheapest[layer]
        bins = min(left // self.unit, self._bins)
        if self._ways(tuple(sorted(self._kind[layer] for layer in layers)))[bins] == 0:  # rarer than floats count: see `_extend`
            tight = FeasibleSampler(self.space, self.space.minimum + left)
            return tight._draw(config, layers, tight._bins, rng)
        return self._draw(config, layers, bins, rng)

    def mix(self, first: SubnetConfig, second: SubnetConfig, rng: np.random.Generator) -> SubnetConfig:
        """A config that has each layer from either of two, uniformly over all such mixtures that keep the budget.

        Both must keep it themselves; then there is always a way, the smaller of both in each layer.
        """
        pair = (first, second)
        costs = [tuple(layer_parameters(c[i].code, s.in_features, s.out_features) for c in pair) for i, s in enumerate(self.space.layers)]
        differing = [i for i in range(len(first)) if first[i] != second[i]]
        left = self.budget - sum(map(min, costs))
        options = [_options_of(costs[i], self.unit) for i in differing]
        bins = min(left // self.unit, self._bins, sum(int(option.units[-1]) for option in options))
        tables = [np.ones(bins + 1)]
        for option in reversed(options):
            tables.append(_extend(tables[-1], option))
        child = list(first)
        for i, option, table in zip(differing, options, tables[-2::-1], strict=True):
            chosen, bins = _pick(option, table, bins, rng)
            child[i] = pair[chosen][i]
        return tuple(child)

    def _draw(self, config: SubnetConfig, layers: Sequence[int], bins: int, rng: np.random.Generator) -> SubnetConfig:
        """Replace some layers, drawn in proportion to how many completions each option leaves."""
        drawn, order = list(config), sorted(layers, key=lambda layer: self._kind[layer])
        kinds = tuple(self._kind[layer] for layer in order)
        for position, layer in enumerate(order):
            option, bins = _pick(self._options[kinds[position]], self._ways(kinds[position + 1 :]), bins, rng)
            drawn[layer] = self.space.layer_configs[layer][option]
        return tuple(drawn)

    def _ways(self, kinds: tuple[int, ...]) -> _Ways:
        """`[b]`: number of ways to fill layers of these kinds with at most b units, up to a common factor.

        Kept for later, since layers of one kind are interchangeable: few different tails ever occur.
        """
        known = next((start for start in range(len(kinds)) if kinds[start:] in self._tables), len(kinds))
        ways = self._tables[kinds[known:]] if known < len(kinds) else np.ones(self._bins + 1)
        for start in reversed(range(known)):
            if len(self._tables) >= _MAX_TABLES:
                self._tables.clear()
            ways = self._tables[kinds[start:]] = _extend(ways, self._options[kinds[start]])
        return ways


def _extend(ways: _Ways, options: _Options) -> _Ways:
    """Ways with one more layer, scaled so that the largest is 1.

    Scaling loses only states 1e308 times rarer than the most frequent one; a state that was drawn has a weight above
    zero, so some completion of it has one too.
    """
    total = np.zeros_like(ways)
    for units, count in zip(options.units, options.counts, strict=True):
        if units < len(ways):
            total[units:] += count * ways[: len(ways) - units]
    scaled: _Ways = total / total[-1]
    return scaled


def _pick(options: _Options, ways: _Ways, bins: int, rng: np.random.Generator) -> tuple[int, int]:
    """An option's index in proportion to the ways to complete it within `bins` units, and the units left after it."""
    pick = _pick_of_two if len(options.units) <= 2 else _pick_of_many
    group = pick(options, ways, bins, rng)
    members = options.members[group]
    return members[int(rng.integers(len(members)))], bins - int(options.units[group])


def _pick_of_many(options: _Options, ways: _Ways, bins: int, rng: np.random.Generator) -> int:
    fitting = options.units <= bins
    weights = np.where(fitting, options.counts * ways[np.where(fitting, bins - options.units, 0)], 0.0)
    return _choose(weights, rng)


def _pick_of_two(options: _Options, ways: _Ways, bins: int, rng: np.random.Generator) -> int:
    """The same, bit for bit, of one or two groups, as two parents have in a layer: a few numbers are faster in Python than as arrays."""
    weights = [float(count * ways[bins - unit]) if unit <= bins else 0.0 for unit, count in zip(options.units, options.counts, strict=True)]
    total = sum(weights)
    drawn = rng.random()
    if len(weights) == 1:
        return 0
    first, second = weights[0] / total, weights[1] / total
    return int(drawn >= first / (first + second))


def _choose(weights: _Ways, rng: np.random.Generator) -> int:
    """An index in proportion to the weights: what `rng.choice` draws, bit for bit, without its checks, which cost more than the draw."""
    shares = (weights / weights.sum()).cumsum()
    shares /= shares[-1]
    return int(shares.searchsorted(rng.random(), side="right"))
