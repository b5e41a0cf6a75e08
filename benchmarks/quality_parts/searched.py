"""Our whole pipeline as one row of the quality table: supernet, search at the budget, and what comes after it.

Written against the public API alone, so that the table shows what a user of the library gets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from glora_core.api import Supernet, search
from glora_core.configs import encode
from glora_core.effort import Effort
from glora_core.evaluation import score
from glora_core.finals import epochs_of_all
from glora_core.finals.run import Finalist, choose_soup, run_finals
from glora_core.presets import preset
from glora_core.search.noise import rank_within_noise
from glora_core.training import Trainer, TrainingSettings

from .sources import Data
from .tasks import Task, fresh_model

VAL_BATCH = 50


def passes(effort: Effort, examples: int) -> int:
    """Examples that go forward and backward."""
    return (2 * effort.epochs + epochs_of_all(effort.finals_settings)[0]) * examples


def forwards(effort: Effort, val: int, train: int) -> int:
    """Examples that only go forward: of `val` in the search, and of training before the teacher of the finals."""
    return effort.population * effort.generations * val + epochs_of_all(effort.finals_settings)[1] * train


def recorded(effort: Effort) -> dict[str, Any]:
    """An effort as plain JSON types, part of a run's identity. Known methods have rows of their own."""
    return asdict(replace(effort, scratch_epochs=()))


def effort_of(record: Mapping[str, Any]) -> Effort:
    """An effort read back from what `recorded` gave, lists for tuples perhaps."""
    return Effort(**{name: tuple(value) if isinstance(value, list) else value for name, value in record.items()})


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
    supernet = Supernet(fresh_model(task, data.classes), preset("glora", task.layers), seed=seed)
    chosen = {"seed": seed, "epochs": effort.epochs, "learning_rate": effort.learning_rate, "policy": "sandwich"}
    training = TrainingSettings(**{**settings, **chosen})
    Trainer(supernet, data.train, training).fit()
    found = search(supernet, data.val, budget, effort.search_settings, seed=seed, batch_size=VAL_BATCH)
    ranked = rank_within_noise(found.ranked, len(data.val))
    plan = replace(effort, scratch_epochs=()).finals_settings
    finalists = run_finals(supernet, data.train, data.val, ranked, budget, plan, training, VAL_BATCH)
    scored = len(found.ranked) + 2 * len(finalists)
    taught = forwards(effort, 0, len(data.train))
    return _finish(supernet, data, finalists, passes(effort, len(data.train)), scored * len(data.val) + taught)


def _finish(supernet: Supernet, data: Data, finalists: Sequence[Finalist], passes: int, forwards: int) -> Found:
    """The finalists' soup; its first member, the best finalist, is told beside it."""
    members, _, network = choose_soup(supernet, finalists, data.val, VAL_BATCH)
    alone = members[0].on(supernet)
    alone.set_config(members[0].config)
    single = score(alone.backbone, data.test, VAL_BATCH)
    detail = {
        "single": {"val": members[0].fitness.accuracy, "test": single.accuracy, "parameters": members[0].fitness.parameters},
        "members": [_name(member) for member in members],
        "subnets": [encode(member.config) for member in members],
        "finalists": [
            {"name": _name(finalist), "val": finalist.fitness.accuracy, "val_loss": finalist.fitness.loss} for finalist in finalists
        ],
    }
    return Found(network, sum(member.fitness.parameters for member in members), passes, forwards, detail)


def _name(finalist: Finalist) -> str:
    return f"{finalist.leg.trial.name}, rung {finalist.leg.rung}"
