"""NSGA-II: a front of accuracy against size, and a second accuracy where there is one."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from glora_core.errors import ConfigInvalid
from glora_core.search import SearchSettings, propose
from glora_core.search.nsga2 import crowding_distance, select

SETTINGS = SearchSettings("nsga2", population=40, generations=20, seed_known_methods=False)


def objectives(e, second):
    return (-e.accuracy, e.parameters, -e.second) if second else (-e.accuracy, e.parameters)


def front(evaluated, second=False):
    """The values that no other dominates, the slow way."""
    values = sorted({objectives(e, second) for e in evaluated})
    return {v for v in values if not any(all(a <= b for a, b in zip(w, v, strict=True)) and w != v for w in values)}


@pytest.mark.parametrize("seed", range(3))
def test_the_archive_covers_the_true_front(problem, seed):
    single = replace_second(problem.search(SETTINGS, seed))
    true = front(problem.feasible)
    near = [v for v in true if any(-a[0] >= -v[0] - 0.02 and a[1] <= v[1] * 1.1 for a in front(single))]
    assert len(true) >= 8
    assert len(near) >= 0.9 * len(true)


def replace_second(history):
    return [replace(e, second=None) for e in history]


def test_selection_takes_whole_fronts_first(problem):
    sample = replace_second(problem.feasible[::40])
    best = front(sample)
    chosen = select(sample, len([e for e in sample if objectives(e, False) in best]))
    assert {objectives(e, False) for e in chosen} == best


def test_the_second_accuracy_is_an_objective_where_every_subnet_has_one(problem):
    sample = problem.feasible[::40]
    best = front(sample, second=True)
    assert {objectives(e, True) for e in select(sample, len(best))} == best
    assert best != {objectives(e, True) for e in select(replace_second(sample), len(best)) if e.second is not None}


def test_a_second_accuracy_that_some_subnets_lack_is_left_out(problem):
    sample = problem.feasible[::40]
    partly = [replace(sample[0], second=None), *sample[1:]]
    assert [e.config for e in select(partly, 20)] == [e.config for e in select(replace_second(sample), 20)]


def test_a_search_with_a_second_accuracy_finds_more_of_the_front_of_all_three(problem):
    true = front(problem.feasible, second=True)
    seen, unseen = ({objectives(e, True) for e in search(problem, keep)} & true for keep in (True, False))
    assert len(seen) > 1.2 * len(unseen)


def search(problem, keep):
    """A search that sees the second accuracy or does not; returns what it found, with it."""
    history = []
    for generation in range(12):
        seen = history if keep else replace_second(history)
        population = propose(problem.space, problem.budget, SETTINGS, seen, generation, seed=0)
        history += [problem.evaluate(p.config, generation) for p in population]
    return history


def test_crowding_is_infinite_at_the_ends_and_the_share_of_the_gap_between():
    points = np.array([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0]])
    assert crowding_distance(points).tolist() == [np.inf, 2.0, np.inf]


def test_an_objective_in_which_all_are_equal_adds_no_distance():
    assert crowding_distance(np.array([[1.0, 5.0], [1.0, 5.0]])).tolist() == [0.0, 0.0]


def test_a_missing_library_is_named(problem, monkeypatch):
    monkeypatch.setitem(sys.modules, "moocore", None)
    history = problem.feasible[:3]
    with pytest.raises(ConfigInvalid, match="pip install moocore"):
        propose(problem.space, problem.budget, SETTINGS, history, 1, seed=0)


def test_another_metric_than_accuracy_is_the_objective_where_it_was_measured(problem):
    sample = replace_second(problem.feasible[::40])
    measured = [replace(e, accuracy=0.5, measure=e.accuracy) for e in sample]
    assert [e.config for e in select(measured, 20)] == [e.config for e in select(sample, 20)]
