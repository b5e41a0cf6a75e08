"""What every strategy keeps: pure, always within the budget, exactly as many candidates as asked for, none needlessly twice."""

import random
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glora_core.configs import config_hash
from glora_core.errors import BudgetInfeasible
from glora_core.methods import method_config, seeds_within
from glora_core.sampling import FeasibleSampler
from glora_core.search import STRATEGY_NAMES, Evaluated, Proposal, SearchSettings, propose, rank
from glora_core.space import LayerShape, SearchSpace

SPACE = SearchSpace(tuple(LayerShape(f"l{i}", 6, 4 + i) for i in range(5)), ranks=(1, 2))
BUDGET = SPACE.maximum // 3
every = pytest.mark.parametrize("strategy", STRATEGY_NAMES)


def knobs(strategy: str, **changes: int | float | bool) -> SearchSettings:
    small = SearchSettings(strategy, population=12, generations=4, parents=4, crossover=5, mutation=4, tournament=3, alive=20, pool=40)
    return replace(small, **changes)


def measure(space: SearchSpace, proposal: Proposal, generation: int) -> Evaluated:
    """A made-up but deterministic fitness."""
    digest = int(config_hash(proposal.config)[:8], 16)
    return Evaluated(proposal.config, (digest % 97) / 97, (digest % 89) / 10, space.parameters(proposal.config), generation)


def run(space: SearchSpace, budget: int, setting: SearchSettings, seed: int = 0) -> list[list[Proposal]]:
    history: list[Evaluated] = []
    populations = []
    for generation in range(setting.generations):
        populations.append(propose(space, budget, setting, history, generation, seed))
        history += [measure(space, proposal, generation) for proposal in populations[-1]]
    return populations


@pytest.fixture(scope="module")
def history() -> list[Evaluated]:
    populations = run(SPACE, BUDGET, knobs("random", population=15, generations=2, crossover=0, mutation=0), seed=5)
    return [measure(SPACE, proposal, generation) for generation, population in enumerate(populations) for proposal in population]


@every
def test_equal_arguments_give_equal_populations(history, strategy):
    first = propose(SPACE, BUDGET, knobs(strategy), history, 2, seed=0)
    propose(SPACE, BUDGET, knobs(strategy), history, 3, seed=9)
    assert propose(SPACE, BUDGET, knobs(strategy), history, 2, seed=0) == first


@every
def test_proposing_leaves_the_history_as_it_was(history, strategy):
    before = list(history)
    propose(SPACE, BUDGET, knobs(strategy), history, 2, seed=0)
    assert history == before


@every
@pytest.mark.parametrize("shuffle", range(3))
def test_the_order_of_the_history_does_not_matter(history, strategy, shuffle):
    shuffled = random.Random(shuffle).sample(history, len(history))
    assert propose(SPACE, BUDGET, knobs(strategy), shuffled, 2, seed=0) == propose(SPACE, BUDGET, knobs(strategy), history, 2, seed=0)


@every
@pytest.mark.parametrize(("generation", "seed"), [(3, 0), (2, 1)])
def test_another_generation_or_seed_gives_another_population(history, strategy, generation, seed):
    other = propose(SPACE, BUDGET, knobs(strategy), history, generation, seed)
    assert {p.config for p in other} != {p.config for p in propose(SPACE, BUDGET, knobs(strategy), history, 2, 0)}


@every
def test_a_given_sampler_changes_nothing(history, strategy):
    sampler = FeasibleSampler(SPACE, BUDGET)
    run(SPACE, BUDGET, knobs(strategy))  # a sampler keeps tables; what they were made for must not matter
    assert propose(SPACE, BUDGET, knobs(strategy), history, 2, 0, sampler) == propose(SPACE, BUDGET, knobs(strategy), history, 2, 0)


@every
@settings(max_examples=15)
@given(
    share=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0, 2.0]),
    probability=st.sampled_from([0.0, 0.2, 1.0]),
    needed=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_candidate_of_every_generation_is_in_the_space_and_within_the_budget(strategy, share, probability, needed, seed):
    space = SearchSpace.of(SPACE.layers, (1, 2), {"E": ("vector", "scalar")} if needed else None)
    budget = space.minimum + int(share * (space.maximum - space.minimum))
    setting = knobs(strategy, population=8, crossover=4, mutation=3, mutation_probability=probability)
    populations = run(space, budget, setting, seed)
    assert [len(population) for population in populations] == [8] * 4
    assert all(space.contains(p.config) and space.parameters(p.config) <= budget for population in populations for p in population)


@every
@pytest.mark.parametrize("seed", range(3))
def test_candidates_respect_the_budget_even_if_the_history_was_made_under_a_larger_one(history, strategy, seed):
    budget = sorted(e.parameters for e in history)[4]
    population = propose(SPACE, budget, knobs(strategy), history, 2, seed)
    assert all(SPACE.parameters(proposal.config) <= budget for proposal in population)


@every
def test_an_infeasible_budget_is_refused(strategy):
    space = SearchSpace.of(SPACE.layers, kinds={"E": ("vector",)})
    with pytest.raises(BudgetInfeasible):
        propose(space, space.minimum - 1, knobs(strategy), [], 0, seed=0)


@every
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_search_resumed_anywhere_goes_on_with_the_same_populations(problem, strategy, stop):
    setting = knobs(strategy)
    whole = problem.search(setting, seed=3)
    until = problem.search(replace(setting, generations=stop), seed=3)
    stored = sorted(until, key=lambda e: config_hash(e.config))
    assert problem.search(setting, seed=3, history=stored, start=stop)[len(stored) :] == whole[len(stored) :]


@every
@given(share=st.floats(0.1, 1), seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_the_first_generation_holds_every_known_method_within_the_budget_once(strategy, share, seed):
    budget = int(share * SPACE.maximum)
    population = propose(SPACE, budget, knobs(strategy), [], 0, seed)
    configs = [p.config for p in population]
    assert [p.config for p in population if p.operator == "seed"] == list(dict.fromkeys(seeds_within(SPACE, budget)))
    assert all(configs.count(config) == 1 for config in seeds_within(SPACE, budget))


@every
def test_later_generations_hold_no_known_methods(history, strategy):
    assert not [p for p in propose(SPACE, BUDGET, knobs(strategy), history, 2, seed=0) if p.operator == "seed"]


@every
def test_the_first_generation_without_known_methods_is_random(strategy):
    population = propose(SPACE, BUDGET, knobs(strategy, seed_known_methods=False), [], 0, seed=0)
    assert [p.operator for p in population] == ["random"] * 12


def test_known_methods_outside_the_space_are_not_seeded():
    space = SearchSpace.of(SPACE.layers, kinds={"A": ("none",), "B": ("none", "vector")})
    seeds = [p.config for p in propose(space, space.maximum, knobs("evolution"), [], 0, seed=0) if p.operator == "seed"]
    assert seeds == [method_config(space, "linear-probe"), method_config(space, "bitfit")]


def test_known_methods_that_are_one_and_the_same_subnet_are_seeded_once():
    space = SearchSpace.of([LayerShape(f"l{i}", 6, 4, bias=False) for i in range(5)])  # without a bias, BitFit is the linear probe
    seeds = [p.config for p in propose(space, space.maximum, knobs("evolution"), [], 0, seed=0) if p.operator == "seed"]
    assert seeds == list(dict.fromkeys(seeds_within(space, space.maximum)))
    assert len(seeds) < len(seeds_within(space, space.maximum))


@every
def test_a_population_smaller_than_the_known_methods_is_not_exceeded(strategy):
    setting = knobs(strategy, population=2, crossover=1, mutation=1)
    assert [p.operator for p in propose(SPACE, SPACE.maximum, setting, [], 0, seed=0)] == ["seed", "seed"]


@every
def test_candidates_are_new_while_the_space_is_large(strategy):
    hashes = [config_hash(p.config) for population in run(SPACE, BUDGET, knobs(strategy)) for p in population]
    assert len(set(hashes)) == len(hashes) == 48


@every
@pytest.mark.parametrize("seed", range(3))
def test_a_small_space_is_exhausted_without_a_repetition_and_then_still_fills_every_generation(strategy, seed):
    space = SearchSpace.of([LayerShape("l", 2, 2)], kinds=dict.fromkeys("ABC", ("none",)) | {"D": ("vector", "scalar", "none")})
    setting = knobs(strategy, population=6, generations=4, crossover=2, mutation=2)  # nine subnets in all
    populations = [[p.config for p in population] for population in run(space, space.maximum, setting, seed)]
    assert [len(set(population)) for population in populations] == [6] * 4
    assert len(set(populations[0] + populations[1])) == 9


@every
def test_a_single_subnet_is_proposed_as_often_as_needed(strategy):
    space = SearchSpace.of(SPACE.layers).covering(method_config(SPACE, "bitfit"))
    populations = run(space, space.minimum, knobs(strategy))
    assert [{p.config for p in population} for population in populations] == [{method_config(SPACE, "bitfit")}] * 4
    assert [len(population) for population in populations] == [12] * 4


@pytest.mark.parametrize(
    ("strategy", "place"), [("evolution", 0), ("regularized-evolution", 3), ("surrogate", 0), ("nsga2", 10)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("seed", range(5))
def test_a_search_finds_the_best_of_thousands_in_a_few_hundred_evaluations(problem, strategy, place, seed):
    found = problem.search(SearchSettings(strategy, population=20, generations=20, seed_known_methods=False), seed)
    assert len(problem.feasible) > 5_000
    assert problem.place(rank(found)[0]) <= place


def test_random_search_is_blind_to_what_was_found(problem):
    setting = knobs("random", seed_known_methods=False)
    good, bad = problem.feasible[:30], problem.feasible[-30:]
    assert propose(problem.space, problem.budget, setting, good, 1, 0) == propose(problem.space, problem.budget, setting, bad, 1, 0)


def test_random_search_draws_the_sizes_that_uniform_draws_have(problem):
    found = problem.search(SearchSettings("random", population=100, generations=4, seed_known_methods=False), seed=0)
    sizes = [e.parameters for e in problem.feasible]
    expected, spread = sum(sizes) / len(sizes), (max(sizes) - min(sizes)) / 2
    mean = sum(e.parameters for e in found) / len(found)
    assert abs(mean - expected) < 5 * spread / len(found) ** 0.5


def test_the_search_needs_neither_torch_nor_scikit_learn_to_be_imported():
    code = "import sys, glora_core.search; print([name for name in ('torch', 'sklearn', 'moocore') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
