"""Random search: what every other strategy has to beat (Li and Talwalkar, arXiv 1902.07638)."""

from glora_core.search.generation import Plan, Turn


def random_search(turn: Turn) -> Plan:
    """Subnets drawn uniformly from those that keep the budget, whatever was found before."""
    return [(turn.random, turn.settings.population)]
