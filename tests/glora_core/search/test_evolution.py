"""The paper's evolution: which operators make how many children, of which parents, and what of the parents a child keeps."""

from collections import Counter
from dataclasses import replace

import pytest

from glora_core.configs import config_hash
from glora_core.search import SearchSettings, propose, rank

SETTINGS = SearchSettings("evolution", population=12, parents=4, crossover=5, mutation=4)


@pytest.fixture(scope="module")
def history(problem):
    return problem.search(SearchSettings("random", population=40, generations=1, seed_known_methods=False), seed=5)


def generation(problem, history, **changes):
    return propose(problem.space, problem.budget, replace(SETTINGS, **changes), history, 1, seed=0)


def test_later_generations_have_as_many_candidates_of_each_operator_as_configured(problem, history):
    assert Counter(p.operator for p in generation(problem, history)) == {"crossover": 5, "mutation": 4, "random": 3}


@pytest.mark.parametrize(("operator", "count"), [("random", 0), ("crossover", 2), ("mutation", 1)])
def test_parents_are_recorded_and_are_among_the_best_so_far(problem, history, operator, count):
    best = {config_hash(e.config) for e in rank(history)[:4]}
    made = [p for p in generation(problem, history) if p.operator == operator]
    assert made
    assert all(len(set(p.parents)) == count and set(p.parents) <= best for p in made)


def test_parents_over_the_budget_have_no_children(problem, history):
    budget = sorted(e.parameters for e in history)[10]
    allowed = {config_hash(e.config) for e in history if e.parameters <= budget}
    population = propose(problem.space, budget, SETTINGS, history, 1, seed=0)
    assert all(set(p.parents) <= allowed for p in population)


def test_each_layer_of_a_crossover_comes_from_a_parent(problem, history):
    by_hash = {config_hash(e.config): e.config for e in history}
    children = [p for p in generation(problem, history, crossover=12, mutation=0, parents=20) if p.operator == "crossover"]
    strange = [p for p in children if any(layer not in {by_hash[h][i] for h in p.parents} for i, layer in enumerate(p.config))]
    assert strange == []
    assert [p for p in children if p.config not in {by_hash[h] for h in p.parents}]


def test_a_crossover_with_a_single_parent_is_that_parent_or_something_random(problem, history):
    population = generation(problem, history[:1], crossover=12, mutation=0)
    assert all(p.config == history[0].config for p in population if p.operator == "crossover")


def test_a_mutation_with_probability_zero_changes_a_single_layer(problem, history):
    by_hash = {config_hash(e.config): e.config for e in history}
    population = generation(problem, history, population=20, crossover=0, mutation=20, mutation_probability=0.0)
    changes = [sum(a != b for a, b in zip(p.config, by_hash[p.parents[0]], strict=True)) for p in population]
    assert changes == [1] * 20


def test_a_mutation_changes_about_the_configured_share_of_layers(problem, history):
    by_hash = {config_hash(e.config): e.config for e in history}
    setting = replace(SETTINGS, population=300, crossover=0, mutation=300, mutation_probability=0.5, parents=40)
    population = propose(problem.space, problem.space.maximum, setting, history, 1, seed=0)
    changed = sum(a != b for p in population for a, b in zip(p.config, by_hash[p.parents[0]], strict=True))
    # in the mean 2 of 4 layers are picked (one where none is: +1/16), of which 11/12 differ, and more since new subnets are preferred
    assert 300 * (2 + 1 / 16) * 11 / 12 - 6 * 17 < changed < 300 * (2 + 1 / 16) + 6 * 17
