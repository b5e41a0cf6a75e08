"""Aging evolution (Real et al., "Regularized Evolution for Image Classifier Architecture Search", arXiv 1802.01548).

Subnets leave the population by age instead of by fitness, so that one lucky measurement is not a parent for ever. In
generations instead of one by one: all children of a generation have their parents from the same population.
"""

from glora_core.search.generation import Plan, Turn
from glora_core.search.history import Evaluated, Proposal, rank
from glora_core.search.operators import mutation


def regularized_evolution(turn: Turn) -> Plan:
    """Mutations of the winners of tournaments among the youngest subnets within the budget; `Evaluated.generation` tells age."""
    feasible = [e for e in turn.history if e.parameters <= turn.sampler.budget]
    young = rank(feasible[-turn.settings.alive :])
    return [(lambda: _child(turn, young), turn.settings.population)]


def _child(turn: Turn, ranked: list[Evaluated]) -> Proposal:
    """A mutation of the best of a few drawn without replacement."""
    drawn = turn.rng.choice(len(ranked), size=min(turn.settings.tournament, len(ranked)), replace=False)
    return mutation(turn, ranked[int(drawn.min())])
