"""Our whole pipeline as one row of the quality table: supernet, search at the budget, and what comes after it.

Written against the public API alone, so that the table shows what a user of the library gets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from glora_core.api import Supernet, search
from glora_core.configs import encode
from glora_core.evaluation import score
from glora_core.finals import FinalsSettings
from glora_core.finals.run import Finalist, choose_soup, run_finals
from glora_core.presets import preset
from glora_core.search import SearchSettings
from glora_core.search.noise import rank_within_noise
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
        finals: epochs of each rung of the finals, in which the best three candidates start at two learning rates.
    """

    epochs: int
    population: int
    generations: int
    finals: tuple[int, ...]

    def passes(self, examples: int) -> int:
        """Examples that go forward and backward."""
        alive, epochs = CANDIDATES * len(RATES), 2 * self.epochs
        for rung in self.finals:
            epochs, alive = epochs + alive * rung, (alive + 1) // 2
        return epochs * examples

    def forwards(self, examples: int) -> int:
        """Examples of `val` that go forward in the search."""
        return self.population * self.generations * examples


EFFORTS: Mapping[str, Effort] = {
    "quick": Effort(25, 25, 4, (5, 10)),
    "standard": Effort(50, 25, 6, (10, 20)),
    "thorough": Effort(100, 50, 10, (20, 40)),
}
CANDIDATES, RATES = 3, (1e-3, 3e-3)


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
    """Train a supernet, search it at a budget, train the best candidates on alone, and average them where that is better.

    Args:
        settings: what all methods of the table share: batch size, precision, augmentation, …
    """
    supernet = Supernet(fresh_model(task, data.classes), preset("paper", task.layers, RANKS), seed=seed)
    common = {**settings, "seed": seed}
    training = TrainingSettings(**{**common, "epochs": effort.epochs, "learning_rate": RATE, "policy": "sandwich"})
    Trainer(supernet, data.train, training).fit()
    searching = SearchSettings(population=effort.population, generations=effort.generations)
    found = search(supernet, data.val, budget, searching, seed=seed, batch_size=VAL_BATCH)
    ranked = rank_within_noise(found.ranked, len(data.val))
    plan = FinalsSettings(candidates=CANDIDATES, learning_rates=RATES, epochs=tuple(effort.finals), scratch_epochs=0)
    finalists = run_finals(supernet, data.train, data.val, ranked, budget, plan, TrainingSettings(**common), VAL_BATCH)
    scored = len(found.ranked) + 2 * len(finalists)
    return _finish(supernet, data, finalists, effort.passes(len(data.train)), scored * len(data.val))


def _finish(supernet: Supernet, data: Data, finalists: Sequence[Finalist], passes: int, forwards: int) -> Found:
    """The finalists' soup; its first member, the best finalist, is told beside it."""
    members, _, network = choose_soup(supernet, finalists, data.val, VAL_BATCH)
    alone = members[0].on(supernet)
    alone.set_config(members[0].config)
    single = score(alone.backbone, data.test, VAL_BATCH)
    detail = {
        "single": {"val": members[0].fitness.accuracy, "test": single.accuracy, "parameters": members[0].fitness.parameters},
        "members": [f"{member.leg.trial.name}, rung {member.leg.rung}" for member in members],
        "subnets": [encode(member.config) for member in members],
    }
    return Found(network, sum(member.fitness.parameters for member in members), passes, forwards, detail)
