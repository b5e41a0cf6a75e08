"""Which random subnets a training step trains: each way of drawing keeps what it promises, and resumed runs draw the same."""

from collections import Counter

import pytest

from glora_core.configs import TENSORS
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import LayerShape, Override, SearchSpace
from glora_core.training.policy import SubnetSampler
from glora_core.training.settings import TrainingSettings

STEPS = 1800
UNEVEN = SearchSpace.of(
    [LayerShape("qkv", 32, 96), LayerShape("proj", 32, 32), LayerShape("fc1", 32, 128)],
    kinds={"A": ["none"], "B": ["none"], "C": ["none"], "D": ["none"]},
    overrides=[
        Override.of("proj", kinds={"E": ["vector"]}),
        Override.of("fc1", ranks=[1, 2], kinds={"B": ["lora", "none"], "D": ["scalar", "none"]}),
    ],
)
PAPER = SearchSpace.of([LayerShape(f"layer{i}", 16, 16) for i in range(6)])
WAYS = ("uniform", "fair", "progressive", "budget")


def sampler(space, sampling="uniform", steps=STEPS, **changes):
    budget = (space.minimum + space.maximum) // 3 if sampling == "budget" else None
    return SubnetSampler(space, TrainingSettings(sampling=sampling, budget=budget, **changes), steps)


def drawn(chosen, steps=STEPS):
    return [config for step in range(steps) for config in chosen.draw(step)]


def test_uniform_sampling_draws_each_layer_uniformly_from_its_own_configs():
    assert [len(configs) for configs in UNEVEN.layer_configs] == [3, 1, 18]
    found = drawn(sampler(UNEVEN))
    for layer, configs in enumerate(UNEVEN.layer_configs):
        counts = [sum(config[layer] == wanted for config in found) for wanted in configs]
        mean = STEPS / len(configs)
        assert sum(counts) == STEPS
        assert all(abs(count - mean) < 5 * mean**0.5 for count in counts)


def test_fair_sampling_trains_every_choice_of_a_tensor_equally_often_in_every_run():
    found = drawn(sampler(PAPER, "fair"), 24)
    for layer, choices in enumerate(PAPER.choices):
        for tensor in TENSORS:
            size = len(choices[tensor])
            for start in range(0, 24, size):
                run = [config[layer][tensor] for config in found[start : start + size]]
                assert Counter(run) == Counter(choices[tensor])


def test_fair_sampling_does_not_tie_layers_or_tensors_together():
    found = drawn(sampler(PAPER, "fair"), 200)
    assert len({config[0] for config in found}) > 100
    assert sum(config[0]["A"] == config[1]["A"] for config in found) < 100


def test_progressive_sampling_starts_at_the_largest_and_ends_uniform():
    chosen, largest = sampler(PAPER, "progressive", 1000), PAPER.extreme(largest=True)
    share = [
        sum(own == big for step in steps for own, big in zip(chosen.draw(step)[0], largest, strict=True)) / (6 * len(steps))
        for steps in (range(1), range(240, 260), range(500, 1000))
    ]
    assert share[0] == 1.0
    assert 0.3 < share[1] < 0.7
    assert share[2] < 0.02


def test_budget_sampling_draws_only_subnets_within_the_budget_and_as_the_search_does():
    chosen = sampler(PAPER, "budget", seed=3)
    budget = (PAPER.minimum + PAPER.maximum) // 3
    found = drawn(chosen, 100)
    assert max(PAPER.parameters(config) for config in found) <= budget
    assert found[0] == FeasibleSampler(PAPER, budget).sample(stream(3, 1, 0))


@pytest.mark.parametrize("sampling", WAYS)
def test_a_steps_subnets_depend_on_nothing_drawn_before(sampling):
    first, second = (sampler(PAPER, sampling, subnets=2) for _ in range(2))
    later = [first.draw(step) for step in range(20)][13:]
    assert [second.draw(step) for step in range(13, 20)] == later


@pytest.mark.parametrize("sampling", WAYS)
def test_another_seed_draws_other_subnets(sampling):
    first, second = (sampler(PAPER, sampling, seed=seed) for seed in (0, 1))
    assert [first.draw(900 + i) for i in range(5)] != [second.draw(900 + i) for i in range(5)]


@pytest.mark.parametrize("sampling", WAYS)
def test_several_subnets_of_a_step_are_the_next_ones_of_the_sequence(sampling):
    several = sampler(PAPER, sampling, subnets=3, steps=10**9)
    one = sampler(PAPER, sampling, steps=10**9)
    assert drawn(several, 4) == drawn(one, 12)
