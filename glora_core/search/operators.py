"""How children are made from parents: crossover and mutation, uniform over the children that keep the budget.

Nothing is rejected or repaired afterwards: the sampler counts the ways that a child can be finished within the budget.
"""

from collections.abc import Sequence

import numpy as np

from glora_core.search.generation import Turn
from glora_core.search.history import Evaluated, Proposal


def crossover(turn: Turn, first: Evaluated, second: Evaluated) -> Proposal:
    """A child that has each layer from either parent, uniform over all such mixtures that keep the budget."""
    child = turn.sampler.mix(first.config, second.config, turn.rng)
    return Proposal(child, "crossover", (first.digest, second.digest))


def mutation(turn: Turn, parent: Evaluated) -> Proposal:
    """A child with some layers of its parent redrawn, uniformly over all ways that keep the budget.

    Each layer is one of them with the settings' probability; if that hits none, one layer is.
    """
    layers = len(parent.config)
    picked = np.flatnonzero(turn.rng.random(layers) < turn.settings.mutation_probability).tolist()
    child = turn.sampler.redraw(parent.config, picked or [int(turn.rng.integers(layers))], turn.rng)
    return Proposal(child, "mutation", (parent.digest,))


def couple(turn: Turn, parents: Sequence[Evaluated]) -> Proposal:
    """A crossover of two parents drawn uniformly, two different ones where there are two."""
    first, second = turn.rng.choice(len(parents), size=2, replace=len(parents) < 2).tolist()
    return crossover(turn, parents[first], parents[second])


def offspring(turn: Turn, parents: Sequence[Evaluated]) -> Proposal:
    """A mutation of one parent, drawn uniformly."""
    return mutation(turn, parents[int(turn.rng.integers(len(parents)))])
