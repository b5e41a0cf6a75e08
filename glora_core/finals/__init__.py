"""Finals: the best candidates and the known methods trained alone.

`plan`: who, how, and who goes on; `rungs`: in which order; `ranking`: who wins; `run`: trained in one process. Only
`run`, which is not imported here, needs torch.
"""

from glora_core.finals.plan import FinalsSettings, Trial, distinct, first_rung, from_scratch, survivors
from glora_core.finals.ranking import asked_for_soup, one_basin, rank_finalists
from glora_core.finals.rungs import Leg, as_they_stand, epochs_of_all, halved, play, way

__all__ = [
    "FinalsSettings",
    "Leg",
    "Trial",
    "as_they_stand",
    "asked_for_soup",
    "distinct",
    "epochs_of_all",
    "first_rung",
    "from_scratch",
    "halved",
    "one_basin",
    "play",
    "rank_finalists",
    "survivors",
    "way",
]
