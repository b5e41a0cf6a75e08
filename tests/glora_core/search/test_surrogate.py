"""The surrogate: what it learns from, what it expects, and that it needs nothing of the machine it runs on."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from math import exp, pi, sqrt

import numpy as np
import pytest

from glora_core.configs import decode, encode
from glora_core.errors import ConfigInvalid
from glora_core.metrics import UNMEASURED
from glora_core.search import SearchSettings, propose, rank, surrogate
from glora_core.search.encoding import encode_features
from glora_core.search.surrogate import expected_improvement
from glora_core.space import LayerShape, SearchSpace

SETTINGS = SearchSettings("surrogate", population=10, pool=100, seed_known_methods=False)


@pytest.fixture(scope="module")
def history(problem):
    return problem.search(SearchSettings("random", population=60, generations=1, seed_known_methods=False), seed=5)


def accuracy(problem, population):
    return sum(problem.evaluate(p.config).accuracy for p in population) / len(population)


@pytest.mark.parametrize("seed", range(3))
def test_a_population_chosen_from_a_pool_is_better_than_children_as_they_come(problem, seed):
    history = problem.feasible[::20]
    chosen = propose(problem.space, problem.budget, SETTINGS, history, 1, seed)
    taken_all = propose(problem.space, problem.budget, replace(SETTINGS, population=100, pool=1), history, 1, seed)
    assert accuracy(problem, chosen) > accuracy(problem, taken_all) + 0.05


def test_the_best_to_improve_on_keeps_the_budget(problem, history, monkeypatch):
    best = []

    def noted(mean, deviation, value):
        best.append(value)
        return expected_improvement(mean, deviation, value)

    monkeypatch.setattr(surrogate, "expected_improvement", noted)
    propose(problem.space, problem.budget, SETTINGS, history, 1, seed=0)
    forbidden = [replace(e, parameters=problem.budget + 1) if e.order == rank(history)[0].order else e for e in history]
    propose(problem.space, problem.budget, SETTINGS, forbidden, 1, seed=0)
    assert best[1] < best[0]


def test_losses_of_nothing_and_without_bound_are_survived(problem, history):
    strange = [replace(history[0], loss=sys.float_info.max), replace(history[1], loss=0.0), *history[2:]]
    with np.errstate(all="raise"):
        assert len(propose(problem.space, problem.budget, SETTINGS, strange, 1, seed=0)) == 10


def test_another_metric_than_accuracy_is_learned_where_it_was_measured(problem, history):
    measured = [replace(e, accuracy=0.5, measure=e.accuracy) for e in history]
    assert propose(problem.space, problem.budget, SETTINGS, measured, 1, 0) == propose(
        problem.space, problem.budget, SETTINGS, history, 1, 0
    )


def test_a_fitness_that_could_not_be_measured_is_survived(problem, history):
    strange = [replace(e, measure=UNMEASURED if index < 2 else e.accuracy) for index, e in enumerate(history)]
    with np.errstate(all="raise"):
        assert len(propose(problem.space, problem.budget, SETTINGS, strange, 1, seed=0)) == 10
        assert len(propose(problem.space, problem.budget, SETTINGS, strange[:2], 1, seed=0)) == 10


def test_expected_improvement_is_that_of_the_normal_distribution():
    at_best, certain, hopeless = expected_improvement(np.array([1.0, 3.0, -9.0]), np.array([2.0, 1e-9, 1.0]), 1.0)
    assert at_best == pytest.approx(2 / sqrt(2 * pi))
    assert certain == pytest.approx(2)
    assert 0 <= hopeless < exp(-40)


def test_features_are_levels_then_counts_of_layers_then_parameters():
    space = SearchSpace.of([LayerShape("a", 6, 4), LayerShape("b", 6, 4)], (2,), {"A": ("vector", "none"), "C": ("none",)})
    row = encode_features(space, [decode("VL2NSN-NSNNV")])[0]
    assert row[:10].tolist() == [2, 4, 0, 1, 0, 0, 1, 0, 0, 2]
    assert row[10:-1].sum() == 5 * 2
    assert row[-1] == space.parameters(decode("VL2NSN-NSNNV"))


def test_a_config_of_a_larger_space_can_be_learned_from():
    space = SearchSpace.of([LayerShape("a", 6, 4)], (2,))
    assert encode_features(space, [decode("L8NNNN"), decode("L2NNNN")])[:, 0].tolist() == [10, 4]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(problem, history, threads, tmp_path):
    rows = [(encode(e.config), e.accuracy, e.loss, e.parameters) for e in history]
    (tmp_path / "problem.json").write_text(json.dumps([problem.space.to_dict(), problem.budget, rows, SETTINGS.to_dict()]))
    code = """if True:
        import json, sys
        from glora_core.configs import decode, encode
        from glora_core.search import Evaluated, SearchSettings, propose
        from glora_core.space import SearchSpace
        space, budget, rows, settings = json.load(open(sys.argv[1]))
        history = [Evaluated(decode(text), *rest) for text, *rest in rows]
        print(*[encode(p.config) for p in propose(SearchSpace.from_dict(space), budget, SearchSettings(**settings), history, 1, 0)])
    """
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    command = [sys.executable, "-c", code, str(tmp_path / "problem.json")]
    printed = subprocess.run(command, env=os.environ | limits, capture_output=True, text=True, check=True).stdout
    assert printed.split() == [encode(p.config) for p in propose(problem.space, problem.budget, SETTINGS, history, 1, 0)]


def test_a_missing_library_is_named(problem, history, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ConfigInvalid, match="pip install scikit-learn"):
        propose(problem.space, problem.budget, SETTINGS, history, 1, seed=0)
