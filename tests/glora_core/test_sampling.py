"""Feasible sampling: the budget always holds, every draw is uniform, and nothing is ever retried."""

import itertools
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glora_core import sampling
from glora_core.configs import KINDS, TENSORS, SubnetConfig
from glora_core.errors import BudgetInfeasible, ConfigInvalid
from glora_core.presets import preset
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import LayerShape, Override, SearchSpace

Draw = Callable[[np.random.Generator], SubnetConfig]

SMALL = SearchSpace.of(
    [LayerShape("a", 3, 2), LayerShape("b", 2, 4), LayerShape("c", 3, 3)],
    kinds={"A": ("vector", "none"), "B": ("none",), "C": ("none",), "D": ("scalar", "none"), "E": ("vector", "scalar")},
)
MIXED = SearchSpace.of(
    [
        LayerShape("a", 3, 2),
        LayerShape("b", 2, 4, bias=False),
        LayerShape("c", 3, 3, bias=False, absorber="norm"),
        LayerShape("d", 3, 2),
        LayerShape("e", 3, 2),
    ],
    ranks=(1, 2),
    kinds={"A": ("vector", "none"), "B": ("none",), "C": ("none",), "D": ("scalar", "none"), "E": ("vector", "scalar")},
    overrides=[
        Override.of("b", kinds={"A": ["none"], "B": ["lora", "none"]}),
        Override.of("d", ranks=[3], kinds={"A": ["lora", "L1", "none"], "D": ["none"], "E": ["scalar"]}),
        Override.of("e", kinds={"A": ["scalar"], "D": ["none"]}),
    ],
)
"""Five layers that may become 8, 3, 4, 3 and 2 things: 576 subnets."""


def choose(space: SearchSpace, rng: np.random.Generator) -> SubnetConfig:
    """Any config of a space, each layer by itself."""
    return tuple(configs[int(rng.integers(len(configs)))] for configs in space.layer_configs)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    shape = st.tuples(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.sampled_from(["", "norm"]))
    layers = [LayerShape(f"l{i}", *facts) for i, facts in enumerate(draw(st.lists(shape, min_size=1, max_size=5)))]
    ranks = st.sets(st.integers(1, 8), min_size=1, max_size=3).map(sorted)
    kinds = st.fixed_dictionaries({tensor: st.sets(st.sampled_from(KINDS[tensor]), min_size=1).map(sorted) for tensor in TENSORS})
    names = st.sampled_from([layer.name for layer in layers])
    overrides = draw(st.lists(st.builds(Override.of, names, ranks, kinds), max_size=2))
    return SearchSpace.of(layers, draw(ranks), draw(kinds), overrides)


@st.composite
def samplers(draw: st.DrawFn) -> FeasibleSampler:
    """A sampler over any space at any feasible budget and any resolution."""
    space, share = draw(spaces()), draw(st.floats(0, 1.2))
    budget = space.minimum + int(share * (space.maximum - space.minimum))
    return FeasibleSampler(space, budget, draw(st.sampled_from([1, 7, 64, 4096])))


seeds = st.integers(0, 2**32)


def feasible(space: SearchSpace, budget: int) -> list[SubnetConfig]:
    return [config for config in itertools.product(*space.layer_configs) if space.parameters(config) <= budget]


def uniform(draw: Draw, population: Iterable[SubnetConfig], draws: int = 20_000) -> bool:
    """Whether so many draws look uniform over a population, by Pearson's chi-square test at p = 1e-3.

    The quantile is Wilson and Hilferty's: the cube root of chi-square by its freedom is nearly normal.
    """
    counts, members = Counter(itertools.starmap(draw, itertools.repeat((stream(11),), draws))), set(population)
    assert set(counts) <= members
    expected, freedom = draws / len(members), len(members) - 1
    assert expected >= 5
    chi_square = sum((counts[member] - expected) ** 2 for member in members) / expected
    spread = 2 / (9 * freedom)
    return ((chi_square / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread) < 3.09


@given(samplers(), seeds)
def test_every_draw_is_in_the_space_and_within_the_budget(sampler, seed):
    rng, space = stream(seed), sampler.space
    drawn = [sampler.sample(rng) for _ in range(5)]
    assert all(space.contains(config) and space.parameters(config) <= sampler.budget for config in drawn)


@given(samplers(), seeds, st.data())
def test_redrawn_layers_keep_the_budget_and_the_others_stay(sampler, seed, data):
    rng, space = stream(seed), sampler.space
    config = sampler.sample(rng)
    layers = data.draw(st.lists(st.integers(0, len(config) - 1), unique=True))
    redrawn = sampler.redraw(config, layers, rng)
    assert space.contains(redrawn) and space.parameters(redrawn) <= sampler.budget
    assert [i for i, (old, new) in enumerate(zip(config, redrawn, strict=True)) if old != new and i not in layers] == []


@given(samplers(), seeds)
def test_a_mixture_keeps_the_budget_and_has_each_layer_from_either_parent(sampler, seed):
    rng, space = stream(seed), sampler.space
    first, second = sampler.sample(rng), sampler.sample(rng)
    child = sampler.mix(first, second, rng)
    assert space.contains(child) and space.parameters(child) <= sampler.budget
    assert all(layer in parents for layer, *parents in zip(child, first, second, strict=True))


@given(samplers(), seeds)
def test_redrawing_nothing_and_mixing_a_config_with_itself_change_nothing(sampler, seed):
    config = sampler.sample(stream(seed))
    assert sampler.redraw(config, [], stream(seed)) == config
    assert sampler.mix(config, config, stream(seed)) == config


@given(spaces(), seeds)
def test_a_config_of_exactly_the_budget_can_be_redrawn_and_mixed(space, seed):
    config = choose(space, stream(seed))
    sampler = FeasibleSampler(space, space.parameters(config), max_bins=7)
    redrawn = sampler.redraw(config, range(len(config)), stream(seed, 1))
    mixed = sampler.mix(config, redrawn, stream(seed, 2))
    assert max(space.parameters(redrawn), space.parameters(mixed)) <= sampler.budget


@given(spaces(), seeds)
def test_a_budget_of_exactly_the_smallest_subnet_always_draws_a_smallest_subnet(space, seed):
    sampler = FeasibleSampler(space, space.minimum)
    drawn = sampler.sample(stream(seed))
    redrawn = sampler.redraw(drawn, range(len(drawn)), stream(seed, 1))
    assert space.parameters(drawn) == space.parameters(redrawn) == space.minimum
    assert space.parameters(sampler.mix(drawn, redrawn, stream(seed, 2))) == space.minimum


@given(spaces(), st.integers(1, 10**6))
def test_an_infeasible_budget_is_refused_with_the_achievable_range(space, missing):
    with pytest.raises(BudgetInfeasible) as refusal:
        FeasibleSampler(space, space.minimum - missing)
    assert (refusal.value.minimum, refusal.value.maximum) == (space.minimum, space.maximum)


@pytest.mark.parametrize(
    ("space", "budget"), [(SMALL, 13), (SMALL, SMALL.maximum + 1000), (MIXED, 12), (MIXED, 20)], ids=lambda v: str(v)[-12:]
)
def test_draws_are_uniform_over_the_feasible_configs(space, budget):
    assert uniform(FeasibleSampler(space, budget).sample, feasible(space, budget))


@pytest.mark.parametrize("layers", [(1,), (3, 0), (0, 1, 2, 3, 4)])
def test_redrawn_layers_are_uniform_over_all_ways_that_keep_the_budget(layers):
    sampler = FeasibleSampler(MIXED, 18)
    config = next(c for c in feasible(MIXED, 12) if c != MIXED.extreme(largest=False))
    ways = [c for c in feasible(MIXED, 18) if all(c[i] == config[i] for i in range(len(c)) if i not in layers)]
    assert len(ways) > 1
    assert uniform(lambda rng: sampler.redraw(config, layers, rng), ways)


def test_mixtures_are_uniform_over_all_that_keep_the_budget():
    sampler = FeasibleSampler(MIXED, 18)
    first, second = (next(c for c in map(sampler.sample, map(stream, range(seed, 99))) if MIXED.parameters(c) > 15) for seed in (0, 50))
    ways = [c for c in itertools.product(*zip(first, second, strict=True)) if MIXED.parameters(c) <= 18]
    assert 4 < len(set(ways)) < 2**5
    assert uniform(lambda rng: sampler.mix(first, second, rng), ways)


def test_a_sampler_that_draws_each_layer_by_itself_would_not_pass_as_uniform():
    def naive(rng: np.random.Generator) -> SubnetConfig:
        """Each layer uniform over what still leaves room for the cheapest rest."""
        left, drawn = 13 - SMALL.minimum, []
        for configs, costs in zip(SMALL.layer_configs, SMALL.costs, strict=True):
            fitting = [i for i, cost in enumerate(costs) if cost - min(costs) <= left]
            picked = fitting[int(rng.integers(len(fitting)))]
            left -= costs[picked] - min(costs)
            drawn.append(configs[picked])
        return tuple(drawn)

    assert not uniform(naive, feasible(SMALL, 13))


@pytest.mark.parametrize("space", [SMALL, MIXED], ids=["alike", "mixed"])
def test_the_ways_counted_for_every_slack_are_as_many_as_the_feasible_configs(space):
    sampler = FeasibleSampler(space, space.maximum)
    counted = sampler._ways(tuple(sorted(sampler._kind)))
    expected = [len(feasible(space, space.minimum + slack)) for slack in range(space.maximum - space.minimum + 1)]
    assert np.allclose(counted * space.size, expected, rtol=1e-12)


@pytest.mark.parametrize("max_bins", [1, 2, 3, 5])
def test_a_coarse_resolution_still_draws_more_than_the_smallest_subnets_and_never_exceeds_the_budget(max_bins):
    sampler, rng = FeasibleSampler(SMALL, 20, max_bins), stream(0)
    counts = [SMALL.parameters(sampler.sample(rng)) for _ in range(300)]
    assert SMALL.minimum < max(counts) <= 20
    assert sampler.unit > 1


def test_a_space_too_large_to_count_in_floats_is_sampled_all_the_same():
    space = SearchSpace(tuple(LayerShape(f"l{i}", 64, 64) for i in range(200)))
    drawn = FeasibleSampler(space, space.maximum // 3).sample(stream(0))
    assert space.size > 10**400
    assert 0 < space.parameters(drawn) <= space.maximum // 3


VIT = tuple(LayerShape(f"{b}.{i}", *size) for b in range(12) for i, size in enumerate([(192, 576), (192, 192), (192, 768), (768, 192)]))


@pytest.mark.parametrize("budget", [0, 1, 2, 191, 192, 5_000, 100_000, 10**9])
def test_a_space_of_48_layers_and_three_ranks_is_sampled_redrawn_and_mixed_at_any_budget(budget):
    space, rng = preset("paper-multirank", VIT), stream(budget)
    sampler = FeasibleSampler(space, budget)
    first, second = sampler.sample(rng), sampler.sample(rng)
    drawn = [first, second, sampler.redraw(first, range(0, 48, 2), rng), sampler.mix(first, second, rng)]
    assert all(space.contains(config) and space.parameters(config) <= budget for config in drawn)
    assert budget < 5_000 or len(set(drawn)) == 4


def test_many_layers_are_redrawn_also_where_the_ways_left_are_too_few_of_all_to_be_told_in_floats():
    space = SearchSpace(tuple(LayerShape(f"l{i}", 64, 64) for i in range(200)))
    config = space.extreme(largest=True)[:50] + space.extreme(largest=False)[50:]
    sampler = FeasibleSampler(space, space.parameters(config) + 1)
    redrawn = sampler.redraw(config, range(50, 200), stream(0))
    assert redrawn[:50] == config[:50]
    assert space.parameters(redrawn) <= sampler.budget


def test_large_spaces_are_drawn_from_near_the_budget_since_that_is_where_nearly_all_configs_are():
    space = preset("paper-multirank", VIT)
    sampler, rng = FeasibleSampler(space, 100_000), stream(0)
    assert min(space.parameters(sampler.sample(rng)) for _ in range(20)) > 80_000


def every_kind_of_draw(sampler: FeasibleSampler) -> list[SubnetConfig]:
    """One of each kind, from streams of their own."""
    first, second = sampler.sample(stream(1)), sampler.sample(stream(2))
    return [first, second, sampler.redraw(first, [0, 2, 4], stream(3)), sampler.mix(first, second, stream(4))]


@pytest.mark.parametrize("kept", [1, 2048])
def test_draws_do_not_depend_on_what_the_sampler_drew_before(kept, monkeypatch):
    fresh = every_kind_of_draw(FeasibleSampler(MIXED, 16))
    monkeypatch.setattr(sampling, "_MAX_TABLES", kept)
    used, rng = FeasibleSampler(MIXED, 16), stream(9)
    for _ in range(50):
        config = used.redraw(used.sample(rng), [int(i) for i in rng.permutation(5)[:3]], rng)
        used.mix(config, used.sample(rng), rng)
    assert every_kind_of_draw(used) == fresh


def test_redrawing_does_not_depend_on_the_order_in_which_layers_are_named():
    sampler = FeasibleSampler(MIXED, 16)
    config = sampler.sample(stream(1))
    assert sampler.redraw(config, [0, 1, 2, 3], stream(2)) == sampler.redraw(config, [0, 1, 2, 3][::-1], stream(2))


def test_equal_generators_draw_equal_configs_and_others_do_not():
    sampler = FeasibleSampler(SearchSpace(SMALL.layers), 30)
    first, again, other = (sampler.sample(stream(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_stream_depends_on_its_arguments_only():
    first = stream(1, 2, 3).random(4)
    stream(9).random(100)
    assert np.array_equal(stream(1, 2, 3).random(4), first)


@pytest.mark.parametrize("other", [(2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2)])
def test_streams_of_other_arguments_differ(other):
    assert not np.array_equal(stream(*other).random(4), stream(1, 2, 3).random(4))


def test_a_streams_numbers_never_change():
    assert stream(7, 2, 0).integers(1000, size=5).tolist() == [895, 7, 213, 299, 63]


@pytest.mark.parametrize("budget", ["100k", 100.5, math.nan, None, True], ids=str)
def test_a_budget_that_is_no_integer_is_refused(space, budget):
    with pytest.raises(ConfigInvalid, match="is no number of parameters; accepted are integers"):
        FeasibleSampler(space, budget)


@pytest.mark.parametrize("seed", [-1, 0.5, "1"], ids=str)
def test_a_seed_that_is_no_integer_of_at_least_zero_is_refused(seed):
    with pytest.raises(ConfigInvalid, match=r"seed is .*integers of at least 0"):
        stream(seed)


def test_a_space_of_more_layers_than_python_can_recurse_is_drawn_from():
    layers = [LayerShape(f"layer.{i}", 2 + i % 2, 2) for i in range(sys.getrecursionlimit() + 100)]
    space = SearchSpace.of(layers, [1], kinds={tensor: ["none"] for tensor in "ACD"})
    config = FeasibleSampler(space, space.minimum + 500).sample(stream(0))
    assert space.contains(config)
    assert space.minimum < space.parameters(config) <= space.minimum + 500


@given(
    st.lists(st.floats(0, 1e300) | st.integers(0, 9), min_size=1, max_size=40).filter(lambda weights: 0 < sum(weights) < 1e305),
    st.integers(0, 99),
)
def test_weighted_draw_is_that_of_numpy_bit_for_bit(weights: list[float], seed: int) -> None:
    numbers = np.array(weights, dtype=float)
    ours, numpys = stream(seed), stream(seed)

    assert sampling._choose(numbers, ours) == numpys.choice(len(numbers), p=numbers / numbers.sum())
    assert ours.random() == numpys.random()


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 60), st.integers(0, 999))
def test_draw_of_two_is_that_of_many_bit_for_bit(first: int, second: int, bins: int, seed: int) -> None:
    options, ways = sampling._Options.of((first, second), unit=1), stream(seed, 1).random(61).cumsum()
    ours, general = stream(seed), stream(seed)

    assert sampling._pick_of_two(options, ways, bins, ours) == sampling._pick_of_many(options, ways, bins, general)
    assert ours.random() == general.random()
