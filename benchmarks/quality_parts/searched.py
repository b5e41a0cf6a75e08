"""Our whole pipeline as one row of the quality table: supernet, search at the budget, and what comes after it.

Written against the public API alone, so that the table shows what a user of the library gets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from glora_core.api import SearchResult, Supernet, search
from glora_core.configs import encode
from glora_core.presets import preset
from glora_core.search import SearchSettings
from glora_core.training import Trainer, TrainingSettings

from .sources import Data
from .tasks import Task, fresh_model

RANKS = (1, 2, 4)
RATE = 3e-3
VAL_BATCH = 50


@dataclass(frozen=True)
class Effort:
    """How much the pipeline may spend.

    Attributes:
        epochs: of the supernet; each costs two passes, the largest subnet's and a random one's.
        population, generations: of the search.
    """

    epochs: int
    population: int
    generations: int

    def passes(self, examples: int) -> int:
        """Examples that go forward and backward."""
        return 2 * self.epochs * examples

    def forwards(self, examples: int) -> int:
        """Examples of `val` that go forward in the search."""
        return self.population * self.generations * examples


EFFORTS: Mapping[str, Effort] = {"quick": Effort(25, 25, 4), "standard": Effort(50, 25, 8), "thorough": Effort(100, 50, 10)}


@dataclass(frozen=True)
class Found:
    """What the pipeline gives back.

    Attributes:
        model: the adapted network, with no support tensors left or with them, whichever.
        parameters: trained ones in it, head not counted.
        passes, forwards: what it cost, in examples.
        detail: plain JSON types.
    """

    model: nn.Module
    parameters: int
    passes: int
    forwards: int
    detail: Mapping[str, Any]


def search_and_finish(task: Task, data: Data, seed: int, budget: int, effort: Effort, settings: Mapping[str, Any]) -> Found:
    """Train a supernet, search it at a budget, and finish the winner.

    Args:
        settings: what all methods of the table share: batch size, precision, augmentation, …
    """
    supernet = Supernet(fresh_model(task, data.classes), preset("paper", task.layers, RANKS), seed=seed)
    training = TrainingSettings(**{**settings, "epochs": effort.epochs, "learning_rate": RATE, "policy": "sandwich", "seed": seed})
    Trainer(supernet, data.train, training).fit()
    found = search(
        supernet,
        data.val,
        budget,
        SearchSettings(population=effort.population, generations=effort.generations),
        seed=seed,
        batch_size=VAL_BATCH,
    )
    return finish(supernet, found, effort.passes(len(data.train)), len(found.ranked) * len(data.val))


def finish(supernet: Supernet, found: SearchResult, passes: int, forwards: int) -> Found:
    """The search's winner as it is in the supernet. Finals and soups go here: what they train and score adds to the costs."""
    winner = found.best
    detail = {"subnet": encode(winner.config), "val in the search": winner.accuracy}
    return Found(supernet.cut(winner.config).backbone, winner.parameters, passes, forwards, detail)
