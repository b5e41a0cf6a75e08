"""Aging evolution: only the young have children, and within a tournament the best of them."""

from dataclasses import replace

from glora_core.configs import config_hash
from glora_core.search import SearchSettings, propose, rank

SETTINGS = SearchSettings("regularized-evolution", population=20, alive=20, tournament=5, seed_known_methods=False)


def parents(problem, history, **changes):
    population = propose(problem.space, problem.budget, replace(SETTINGS, **changes), history, 3, seed=0)
    return {parent for p in population if p.operator == "mutation" for parent in p.parents}


def aged(problem):
    """The best subnets are the oldest."""
    return [replace(e, generation=i // 20) for i, e in enumerate(problem.feasible[:60])]


def test_subnets_die_of_age_however_good_they_are(problem):
    history = aged(problem)
    assert parents(problem, history) <= {config_hash(e.config) for e in history if e.generation == 2}


def test_a_tournament_of_all_has_the_best_of_the_young_as_its_winner(problem):
    history = aged(problem)
    best = rank(e for e in history if e.generation == 2)[0]
    assert parents(problem, history, tournament=20) == {config_hash(best.config)}


def test_a_tournament_of_one_lets_everybody_have_children(problem):
    assert len(parents(problem, aged(problem), tournament=1)) > 8
