"""NSGA-II (Deb et al., IEEE Transactions on Evolutionary Computation 6(2), 2002): a front instead of one best subnet.

Objectives are fitness, trainable parameters and, where every subnet has one, accuracy on a second split. Needs moocore,
which is loaded on use.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from glora_core.errors import ConfigInvalid
from glora_core.search.generation import Plan, Turn
from glora_core.search.history import Evaluated, Proposal
from glora_core.search.operators import crossover, mutation


def nsga2(turn: Turn) -> Plan:
    """Children of parents that win tournaments of two by front, then by crowding, among the best subnets so far.

    Those are as many as a population has, out of the whole history: what survives generation after generation is the same.

    Raises:
        ConfigInvalid: moocore is not installed.
    """
    survivors = select(turn.ranked, turn.settings.population)
    crossovers, mutations = turn.settings.children

    def parent() -> Evaluated:
        return survivors[int(turn.rng.integers(len(survivors), size=2).min())]

    def couple() -> Proposal:
        return crossover(turn, parent(), parent())

    return [(couple, crossovers), (lambda: mutation(turn, parent()), mutations)]


def select(ranked: Sequence[Evaluated], count: int) -> list[Evaluated]:
    """The best by front, then by crowding distance (the ends of a front first), then as they come."""
    objectives = _objectives(ranked)
    fronts = _fronts(objectives)
    crowding = np.zeros(len(ranked))
    for front in np.unique(fronts):
        members = np.flatnonzero(fronts == front)
        crowding[members] = crowding_distance(objectives[members])
    best = np.lexsort((-crowding, fronts))[:count]
    return [ranked[int(i)] for i in best]


def crowding_distance(objectives: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each point of a front (points, objectives): the sum over objectives of its neighbours' distance, as a share of the range.

    Infinite at the ends; an objective in which all points are equal adds nothing.
    """
    distance = np.zeros(len(objectives))
    for values in objectives.T:
        order = np.argsort(values, kind="stable")
        span = values[order[-1]] - values[order[0]]
        if span > 0:
            distance[order[[0, -1]]] = np.inf
            distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
    return distance


def _objectives(ranked: Sequence[Evaluated]) -> NDArray[np.float64]:
    """(subnets, 2 or 3), all to be made small."""
    columns = [[-e.fitness for e in ranked], [float(e.parameters) for e in ranked]]
    seconds = [-e.second for e in ranked if e.second is not None]
    return np.array([*columns, seconds] if len(seconds) == len(ranked) else columns).T.copy()


def _fronts(objectives: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of each point's front, 0 for those that no other point dominates."""
    try:
        from moocore import pareto_rank
    except ModuleNotFoundError as error:
        raise ConfigInvalid("strategy 'nsga2' needs moocore, which is not installed: pip install moocore") from error
    return np.asarray(pareto_rank(objectives), dtype=np.int64)
