"""Finals: the best candidates and the known methods trained alone (`plan`: who, how, and who goes on)."""

from glora_core.finals.plan import FinalsSettings, Trial, distinct, first_rung, from_scratch, survivors

__all__ = ["FinalsSettings", "Trial", "distinct", "first_rung", "from_scratch", "survivors"]
