"""How much a job may spend: the three sizes of effort, and what each of them means. Pure data; the one place of these numbers.

The library, the service and the quality table (`benchmarks/quality.py`) all read them here. Whoever sets a field himself is
obeyed, field by field; what is left out is the effort's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from glora_core.augmentations import Augmentation
from glora_core.errors import ConfigInvalid
from glora_core.finals.plan import FinalsSettings
from glora_core.search.settings import SearchSettings

EffortName = Literal["quick", "standard", "thorough"]
DEFAULT: EffortName = "standard"


LABEL_SMOOTHING = 0.1
"""Share of every label spread over all classes (arXiv 1512.00567) where nothing else is asked: few examples, learned for long, leave a
network far too sure of itself (docs/decisions/0016-labels-are-smoothed.md)."""
AUGMENT: tuple[Augmentation, ...] = ("crop", "affine")
"""Random changes of training images where nothing else is asked (docs/decisions/0020-turned-as-they-are-learned.md)."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much a pipeline may spend.

    Attributes:
        epochs: of the supernet; each costs two passes, the largest subnet's and a random one's.
        population, generations: of the search.
        finals: epochs of each rung of the finals.
        learning_rate: peak, of the supernet.
        candidates: that start in the finals from their slices; see `FinalsSettings`.
        learning_rates: peak rates that each of them starts at.
        scratch_epochs: epochs of each rung of the known methods trained from scratch in the finals; empty: none are.
        teachers: distinct candidates whose average teaches those that start in the finals.
        standing: distinct candidates that the finals compare as they stand in the supernet.
        cycles: of the last rung of the finals; see `FinalsSettings`.
    """

    epochs: int
    population: int
    generations: int
    finals: tuple[int, ...]
    learning_rate: float = 3e-3
    candidates: int = 2
    learning_rates: tuple[float, ...] = (3e-3,)
    scratch_epochs: tuple[int, ...] = ()
    teachers: int = 5
    standing: int = 5
    cycles: int = 1

    def of(self, epochs: int | None = None, learning_rate: float | None = None) -> "Effort":
        """The same with a supernet's epochs and rate set by hand, and the finals' in the proportions that they have to the effort's own.

        A longer supernet leaves the finals as long as they are: whoever wants these longer too says so.
        """
        share = min(1.0, (epochs or self.epochs) / self.epochs)
        rate = learning_rate or self.learning_rate
        return replace(
            self,
            epochs=epochs or self.epochs,
            learning_rate=rate,
            finals=tuple(max(1, round(rung * share)) for rung in self.finals),
            learning_rates=tuple(float(f"{other * rate / self.learning_rate:.2g}") for other in self.learning_rates),
            scratch_epochs=tuple(max(1, round(rung * share)) for rung in self.scratch_epochs),
        )

    @property
    def search_settings(self) -> SearchSettings:
        """Of a search that says nothing else."""
        return SearchSettings(population=self.population, generations=self.generations)

    @property
    def finals_settings(self) -> FinalsSettings:
        """Of finals that say nothing else."""
        rungs = (self.finals, self.scratch_epochs)
        return FinalsSettings("thorough", self.candidates, self.learning_rates, *rungs, self.teachers, self.standing, self.cycles)


EFFORTS: Mapping[str, Effort] = {
    "quick": Effort(epochs=15, population=25, generations=2, finals=(10, 80)),
    "standard": Effort(epochs=25, population=25, generations=3, finals=(20, 225), scratch_epochs=(5, 15, 30)),
    "thorough": Effort(
        epochs=50,
        population=50,
        generations=5,
        finals=(30, 60, 300),
        candidates=3,
        learning_rates=(1e-3, 3e-3),
        scratch_epochs=(10, 30, 60),
    ),
}
"""Most epochs go into one long training at the end, which pays best: `python -m benchmarks.finals_length`.

`quick` trains no known method from scratch, so its result alone may be worse on val than one of these trained for long.
"""


def effort_named(name: str) -> Effort:
    """One of `EFFORTS`. Raises ConfigInvalid for another name."""
    if name not in EFFORTS:
        raise ConfigInvalid(f"effort {name!r} is unknown; accepted: {', '.join(EFFORTS)}")
    return EFFORTS[name]
