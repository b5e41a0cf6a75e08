"""Feasible sampling: the budget always holds, the draw is uniform, and nothing is ever retried."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glora_core.configs import KINDS, TENSORS
from glora_core.errors import BudgetInfeasible
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import LayerShape, SearchSpace

SMALL = SearchSpace.of(
    [LayerShape("a", 3, 2), LayerShape("b", 2, 4), LayerShape("c", 3, 3)],
    kinds={"A": ("vector", "none"), "B": ("none",), "C": ("none",), "D": ("scalar", "none"), "E": ("vector", "scalar")},
)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    sizes = draw(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=5))
    ranks = draw(st.sets(st.integers(1, 8), min_size=1, max_size=3))
    kinds = {tensor: tuple(draw(st.sets(st.sampled_from(KINDS[tensor]), min_size=1))) for tensor in TENSORS}
    return SearchSpace.of([LayerShape(f"l{i}", *size) for i, size in enumerate(sizes)], sorted(ranks), kinds)


def feasible(space: SearchSpace, budget: int) -> list[tuple]:
    return [c for c in itertools.product(space.layer_configs, repeat=len(space.layers)) if space.parameters(c) <= budget]


@given(spaces(), st.floats(0, 1.2), st.sampled_from([1, 7, 64, 4096]), st.integers(0, 2**32))
def test_every_draw_is_in_the_space_and_within_the_budget(space, share, max_bins, seed):
    budget = space.minimum + int(share * (space.maximum - space.minimum))
    sampler, rng = FeasibleSampler(space, budget, max_bins), stream(seed)
    drawn = [sampler.sample(rng) for _ in range(5)]
    assert all(space.contains(config) and space.parameters(config) <= budget for config in drawn)


@given(spaces(), st.integers(0, 100))
def test_a_budget_of_exactly_the_smallest_subnet_always_draws_a_smallest_subnet(space, seed):
    drawn = FeasibleSampler(space, space.minimum).sample(stream(seed))
    assert space.parameters(drawn) == space.minimum


@given(spaces(), st.integers(1, 10**6))
def test_an_infeasible_budget_is_refused_with_the_achievable_range(space, missing):
    with pytest.raises(BudgetInfeasible) as refusal:
        FeasibleSampler(space, space.minimum - missing)
    assert (refusal.value.minimum, refusal.value.maximum) == (space.minimum, space.maximum)


@pytest.mark.parametrize("budget", [5, 8, 13, SMALL.maximum, SMALL.maximum + 1000])
def test_draws_are_uniform_over_the_feasible_configs(budget):
    population = feasible(SMALL, budget)
    sampler, rng, each = FeasibleSampler(SMALL, budget), stream(11, budget), 40
    counts = Counter(sampler.sample(rng) for _ in range(each * len(population)))
    chi_square = sum((counts[config] - each) ** 2 / each for config in population)
    freedom = len(population) - 1
    assert set(counts) <= set(population)
    # mean f and variance 2f: four standard deviations, at a fixed seed
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


def test_the_number_of_ways_equals_the_number_of_feasible_configs():
    sampler = FeasibleSampler(SMALL, 13)
    assert round(math.exp(sampler._log_ways[0][-1])) == len(feasible(SMALL, 13))


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
