"""Search strategies: pure functions from (stored history, generation, seed) to the next population. No torch."""

from glora_core.search.evolution import EvolutionSettings, propose
from glora_core.search.history import Evaluated, Proposal, rank

__all__ = ["Evaluated", "EvolutionSettings", "Proposal", "propose", "rank"]
