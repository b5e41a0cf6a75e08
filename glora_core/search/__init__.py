"""Search strategies: pure functions from (stored history, generation, seed) to the next population. No torch."""

from glora_core.search.history import Evaluated, Proposal, rank
from glora_core.search.settings import STRATEGY_NAMES, SearchSettings
from glora_core.search.strategies import STRATEGIES, propose

__all__ = ["STRATEGIES", "STRATEGY_NAMES", "Evaluated", "Proposal", "SearchSettings", "propose", "rank"]
