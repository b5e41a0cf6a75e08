"""The paper's evolutionary search (arXiv 2306.07967, §3.4), under a parameter budget that every candidate keeps."""

from functools import partial

from glora_core.search.generation import Plan, Turn
from glora_core.search.operators import couple, offspring


def evolution(turn: Turn) -> Plan:
    """Children by crossover and by mutation of the best subnets so far, and random subnets for the rest."""
    parents = turn.ranked[: turn.settings.parents]
    crossovers, mutations = turn.settings.children
    return [(partial(couple, turn, parents), crossovers), (partial(offspring, turn, parents), mutations)]
