"""The evolutionary search: pure, always within the budget, and honest about where each candidate came from."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glora_core.configs import SubnetConfig, config_hash
from glora_core.errors import BudgetInfeasible, ConfigInvalid
from glora_core.methods import method_config
from glora_core.sampling import FeasibleSampler
from glora_core.search import Evaluated, EvolutionSettings, Proposal, propose, rank
from glora_core.space import LayerShape, SearchSpace

SPACE = SearchSpace(tuple(LayerShape(f"l{i}", 6, 4 + i) for i in range(5)), ranks=(1, 2))
BUDGET = SPACE.maximum // 3
SETTINGS = EvolutionSettings(population=12, generations=4, parents=4, crossover=5, mutation=4)


def measure(space: SearchSpace, config: SubnetConfig) -> Evaluated:
    """A made-up but deterministic fitness."""
    digest = int(config_hash(config)[:8], 16)
    return Evaluated(config, (digest % 97) / 97, (digest % 89) / 10, space.parameters(config))


def run(space: SearchSpace, budget: int, setting: EvolutionSettings, seed: int = 0) -> list[list[Proposal]]:
    history: list[Evaluated] = []
    populations = []
    for generation in range(setting.generations):
        populations.append(propose(space, budget, setting, history, generation, seed))
        history += [measure(space, proposal.config) for proposal in populations[-1]]
    return populations


@pytest.fixture(scope="module")
def history() -> list[Evaluated]:
    first = propose(SPACE, BUDGET, EvolutionSettings(population=30, crossover=0, mutation=0), [], 0, seed=5)
    return [measure(SPACE, proposal.config) for proposal in first]


def test_equal_arguments_give_equal_populations(history):
    first = propose(SPACE, BUDGET, SETTINGS, history, 1, seed=0)
    propose(SPACE, BUDGET, SETTINGS, history, 2, seed=9)
    assert propose(SPACE, BUDGET, SETTINGS, history, 1, seed=0) == first


def test_proposing_leaves_the_history_as_it_was(history):
    before = list(history)
    propose(SPACE, BUDGET, SETTINGS, history, 1, seed=0)
    assert history == before


@pytest.mark.parametrize("shuffle", range(5))
def test_the_order_of_the_history_does_not_matter(history, shuffle):
    shuffled = random.Random(shuffle).sample(history, len(history))
    assert propose(SPACE, BUDGET, SETTINGS, shuffled, 1, seed=0) == propose(SPACE, BUDGET, SETTINGS, history, 1, seed=0)


@pytest.mark.parametrize(("generation", "seed"), [(2, 0), (1, 1)])
def test_another_generation_or_seed_gives_another_population(history, generation, seed):
    assert propose(SPACE, BUDGET, SETTINGS, history, generation, seed) != propose(SPACE, BUDGET, SETTINGS, history, 1, 0)


def test_a_given_sampler_changes_nothing(history):
    sampler = FeasibleSampler(SPACE, BUDGET)
    assert propose(SPACE, BUDGET, SETTINGS, history, 1, 0, sampler) == propose(SPACE, BUDGET, SETTINGS, history, 1, 0)


@settings(max_examples=30)
@given(
    share=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0, 2.0]),
    probability=st.sampled_from([0.0, 0.2, 1.0]),
    needed=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_candidate_of_every_generation_is_in_the_space_and_within_the_budget(share, probability, needed, seed):
    space = SearchSpace.of(SPACE.layers, (1, 2), {"E": ("vector", "scalar")} if needed else None)
    budget = space.minimum + int(share * (space.maximum - space.minimum))
    setting = EvolutionSettings(population=8, generations=4, parents=3, crossover=4, mutation=3, mutation_probability=probability)
    proposals = [proposal for population in run(space, budget, setting, seed) for proposal in population]
    assert all(space.contains(p.config) and space.parameters(p.config) <= budget for p in proposals)


@pytest.mark.parametrize("seed", range(3))
def test_candidates_respect_the_budget_even_if_the_history_was_made_under_a_larger_one(history, seed):
    budget = max(e.parameters for e in history) // 8
    population = propose(SPACE, budget, SETTINGS, history, 1, seed)
    assert all(SPACE.parameters(proposal.config) <= budget for proposal in population)


def test_an_infeasible_budget_is_refused():
    space = SearchSpace.of(SPACE.layers, kinds={"E": ("vector",)})
    with pytest.raises(BudgetInfeasible):
        propose(space, space.minimum - 1, SETTINGS, [], 0, seed=0)


def test_the_first_generation_holds_the_known_methods_and_random_subnets():
    population = propose(SPACE, SPACE.maximum, SETTINGS, [], 0, seed=0)
    known = [method_config(SPACE, method) for method in ("linear-probe", "bitfit", "ssf", "lora")]
    assert [p.config for p in population if p.operator == "seed"] == known
    assert Counter(p.operator for p in population) == {"seed": 4, "random": 8}


def test_the_first_generation_without_known_methods_is_random():
    setting = EvolutionSettings(population=6, crossover=3, mutation=3, seed_known_methods=False)
    assert Counter(p.operator for p in propose(SPACE, BUDGET, setting, [], 0, seed=0)) == {"random": 6}


def test_known_methods_outside_the_space_are_not_seeded():
    space = SearchSpace.of(SPACE.layers, kinds={"A": ("none",), "B": ("none", "vector")})
    seeds = [p.config for p in propose(space, space.maximum, SETTINGS, [], 0, seed=0) if p.operator == "seed"]
    assert seeds == [method_config(space, "linear-probe"), method_config(space, "bitfit")]


def test_a_population_smaller_than_the_known_methods_is_not_exceeded():
    setting = EvolutionSettings(population=2, crossover=1, mutation=1)
    assert [p.operator for p in propose(SPACE, SPACE.maximum, setting, [], 0, seed=0)] == ["seed", "seed"]


def test_later_generations_have_as_many_candidates_of_each_operator_as_configured(history):
    population = propose(SPACE, BUDGET, SETTINGS, history, 1, seed=0)
    assert Counter(p.operator for p in population) == {"crossover": 5, "mutation": 4, "random": 3}


@pytest.mark.parametrize(("operator", "count"), [("seed", 0), ("random", 0), ("crossover", 2), ("mutation", 1)])
def test_parents_are_recorded_and_are_among_the_best_so_far(history, operator, count):
    best = {config_hash(e.config) for e in rank(history)[: SETTINGS.parents]}
    populations = [propose(SPACE, BUDGET, SETTINGS, h, g, seed=0) for g, h in enumerate(([], history))]
    made = [p for population in populations for p in population if p.operator == operator]
    assert made
    assert all(len(p.parents) == count and set(p.parents) <= best for p in made)


def test_each_layer_of_a_crossover_comes_from_a_parent(history):
    by_hash = {config_hash(e.config): e.config for e in history}
    population = propose(SPACE, BUDGET, EvolutionSettings(population=40, crossover=40, mutation=0), history, 1, seed=0)
    strange = [p for p in population if any(layer not in {by_hash[h][i] for h in p.parents} for i, layer in enumerate(p.config))]
    mixed = [p for p in population if p.config not in {by_hash[h] for h in p.parents}]
    assert strange == []
    assert mixed


def test_a_mutation_with_probability_zero_repeats_its_parent(history):
    setting = EvolutionSettings(population=10, crossover=0, mutation=10, mutation_probability=0)
    population = propose(SPACE, BUDGET, setting, history, 1, seed=0)
    assert all(p.parents == (config_hash(p.config),) for p in population)


def test_a_mutation_changes_about_the_configured_share_of_layers(history):
    by_hash = {config_hash(e.config): e.config for e in history}
    setting = EvolutionSettings(population=400, crossover=0, mutation=400, mutation_probability=0.5)
    population = propose(SPACE, SPACE.maximum, setting, history, 1, seed=0)
    changed = sum(a != b for p in population for a, b in zip(p.config, by_hash[p.parents[0]], strict=True))
    # 2,000 layers at 0.5 (new subnets are preferred, which drops the unchanged ones): 1,000 give or take six deviations
    assert 1000 - 6 * 22 < changed < 1000 + 6 * 22 + 2000 * 0.5**5


def test_candidates_are_new_while_the_space_is_large(history):
    hashes = [config_hash(p.config) for p in propose(SPACE, BUDGET, SETTINGS, history, 1, seed=0)]
    assert len(set(hashes)) == len(hashes)
    assert not set(hashes) & {config_hash(e.config) for e in history}


def test_an_exhausted_space_still_fills_every_generation():
    space = SearchSpace.of([LayerShape("l", 2, 2)], kinds=dict.fromkeys("ABCD", ("none",)) | {"E": ("scalar", "none")})
    setting = EvolutionSettings(population=6, generations=5, parents=3, crossover=2, mutation=2)
    populations = run(space, space.maximum, setting)
    assert [len(population) for population in populations] == [6] * 5
    assert {p.config for population in populations for p in population} == {(config,) for config in space.layer_configs}


@pytest.mark.parametrize(
    "arguments",
    [
        {"population": 0},
        {"generations": 0},
        {"parents": 0},
        {"crossover": -1},
        {"mutation": -1},
        {"population": 10, "crossover": 6, "mutation": 5},
        {"mutation_probability": -0.1},
        {"mutation_probability": 1.1},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ConfigInvalid):
        EvolutionSettings(**arguments)
