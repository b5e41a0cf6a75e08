"""Search by a cheap regression: of many children, evaluate those that it expects to improve most on the best so far.

Sequential model-based optimisation in batches (Hutter et al., "Sequential Model-Based Optimization for General Algorithm
Configuration", LION 2011) with extremely randomised trees (Geurts et al., Machine Learning 63, 2006), whose spread is the
uncertainty. Needs scikit-learn, which is loaded on use. Trees compare and average on one thread: unlike a linear model's,
their predictions do not depend on how many threads a linear algebra library has.
"""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glora_core.configs import SubnetConfig
from glora_core.errors import ConfigInvalid
from glora_core.metrics import UNMEASURED
from glora_core.search.encoding import encode_features
from glora_core.search.generation import Maker, Plan, Turn
from glora_core.search.history import Evaluated, Proposal
from glora_core.search.operators import couple, offspring

_ROWS = 500
"""Most subnets that are learned from, so that a generation costs no more late in a search than early."""
_TREES = 50
_CYCLE = 10
_WORST_LOSS = 100.0
_Column = NDArray[np.float64]


def surrogate(turn: Turn) -> Plan:
    """The candidates of largest expected improvement, out of a pool of children of the best subnets and of random ones.

    Raises:
        ConfigInvalid: scikit-learn is not installed.
    """
    pool = _pool(turn)
    if not pool:
        return []
    mean, deviation, best = _predict(turn, [proposal.config for proposal in pool])
    improvement = expected_improvement(mean, deviation, best)
    order = np.lexsort((-mean, -improvement.round(12)))[: turn.settings.population]
    return [(partial(pool.__getitem__, int(i)), 1) for i in order]


def expected_improvement(mean: _Column, deviation: _Column, best: float) -> _Column:
    """By how much a normally distributed value exceeds the best in the mean, where it falls short counting as zero (Mockus, 1975)."""
    normal = NormalDist()
    gain = mean - best
    steps = gain / deviation
    improvement: _Column = gain * np.array([normal.cdf(x) for x in steps]) + deviation * np.array([normal.pdf(x) for x in steps])
    return improvement


def _pool(turn: Turn) -> list[Proposal]:
    """New subnets to choose from: of ten draws, one is random and the others are crossovers and mutations of the best in turn."""
    parents, seen = turn.ranked[: turn.settings.parents], {e.digest for e in turn.history}
    makers: list[Maker] = [turn.random, partial(couple, turn, parents), partial(offspring, turn, parents)]
    drawn = (makers[0 if i % _CYCLE == 0 else 1 + i % 2]() for i in range(max(turn.settings.pool, turn.settings.population)))
    return list({proposal.digest: proposal for proposal in drawn if proposal.digest not in seen}.values())


def _predict(turn: Turn, configs: Sequence[SubnetConfig]) -> tuple[_Column, _Column, float]:
    """Mean and standard deviation of each config's fitness, (configs,), and the fitness of the best subnet within the budget."""
    fitness = _fitness(turn.history)
    feasible = np.array([e.parameters <= turn.sampler.budget for e in turn.history])
    rows = _lessons(fitness)
    space = turn.sampler.space
    trees = _trees_class()(_TREES, max_features=1 / 3, random_state=int(turn.rng.integers(2**31)))
    trees.fit(encode_features(space, [turn.history[i].config for i in rows]), fitness[rows])
    asked = encode_features(space, configs)
    votes = np.stack([tree.predict(asked) for tree in trees.estimators_])
    return votes.mean(axis=0), votes.std(axis=0) + 1e-9, float(fitness[feasible].max())


def _fitness(history: Sequence[Evaluated]) -> _Column:
    """One number per subnet: fitness, whose steps are coarse on a small split, and minus the logarithm of the loss, each standardised.

    A fitness that could not be measured, the lowest float, counts as the worst that could.
    """
    measured = np.array([e.fitness for e in history])
    known = measured[measured > UNMEASURED]
    fitness = np.maximum(measured, known.min() if len(known) else 0.0)
    loss = np.log(np.clip([e.loss for e in history], 1e-6, _WORST_LOSS))
    return _standardised(fitness) - _standardised(loss)


def _standardised(values: _Column) -> _Column:
    standardised: _Column = (values - values.mean()) / (values.std() + 1e-9)
    return standardised


def _lessons(fitness: _Column) -> NDArray[np.intp]:
    """The subnets to learn from: all, or of many the best half and the youngest half."""
    if len(fitness) <= _ROWS:
        return np.arange(len(fitness))
    best = np.argsort(-fitness, kind="stable")[: _ROWS // 2]
    return np.union1d(best, np.arange(len(fitness) - _ROWS // 2, len(fitness)))


def _trees_class() -> Callable[..., Any]:
    try:
        from sklearn.ensemble import ExtraTreesRegressor
    except ModuleNotFoundError as error:
        raise ConfigInvalid("strategy 'surrogate' needs scikit-learn, which is not installed: pip install scikit-learn") from error
    trees: Callable[..., Any] = ExtraTreesRegressor
    return trees
