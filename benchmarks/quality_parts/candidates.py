"""Candidates of one search, as they stand and trained on alone from their slices, and their soups: what the studies of finals share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from glora_core.api import Supernet, search
from glora_core.configs import SubnetConfig, encode
from glora_core.effort import Effort
from glora_core.evaluation import Score, SubnetScorer, score
from glora_core.finals import distinct
from glora_core.finals.run import taught_by
from glora_core.finals.soup import greedy_soup, uniform_soup
from glora_core.presets import preset
from glora_core.search.noise import rank_within_noise
from glora_core.training import Trainer, TrainingSettings

from .methods import budgets
from .runs import shared_settings
from .searched import VAL_BATCH
from .sources import Data
from .tasks import Task, fresh_model

BATCH = VAL_BATCH


@dataclass(frozen=True)
class Trained:
    """One candidate trained on alone at a rate, 0 as it stands: its scores, and its merged weights in float64."""

    rate: float
    val: Score
    test: Score
    state: dict[str, Tensor]


def training_settings(task: Task, seed: int, effort: Effort) -> TrainingSettings:
    """What everything here is trained with: the quality table's settings, at the effort's rate."""
    return TrainingSettings(**shared_settings(task) | {"seed": seed, "epochs": 1, "learning_rate": effort.learning_rate})


def find(task: Task, data: Data, seed: int, training: TrainingSettings, count: int, effort: Effort) -> tuple[Supernet, list[SubnetConfig]]:
    """A trained supernet and the best distinct candidates of a search in it, at the budget of LoRA of rank 4."""
    supernet = Supernet(fresh_model(task, data.classes), preset("glora", task.layers), seed=seed)
    Trainer(supernet, data.train, replace(training, epochs=task.epochs(effort.epochs), policy="sandwich")).fit()
    settings = replace(effort.search_settings, precision=task.precision)
    found = search(supernet, data.val, budgets(task.layers)["full"], settings, seed=seed, batch_size=BATCH)
    return supernet, distinct(rank_within_noise(found.ranked, len(data.val)), count)


def train_on(
    supernet: Supernet, config: SubnetConfig, data: Data, training: TrainingSettings, teachers: Sequence[SubnetConfig] = ()
) -> Trained:
    """A candidate trained on from its slice, taught by others as they stand if there are any."""
    alone, codes = supernet.cut(config), tuple(encode(teacher) for teacher in teachers)
    settings = replace(training, policy="fixed", fixed=encode(config), teachers=codes)
    Trainer(alone, data.train, settings, teacher=taught_by(supernet, teachers)).fit()
    return measured(alone, config, data, training.learning_rate)


def measured(supernet: Supernet, config: SubnetConfig, data: Data, rate: float = 0.0) -> Trained:
    """A candidate as it is in a supernet, its own or that of all."""
    network = SubnetScorer(supernet).load(config)
    val, test = (score(network, split, BATCH) for split in (data.val, data.test))
    return Trained(rate, val, test, supernet.merged_state(config, torch.float64))


def soups(supernet: Supernet, members: Sequence[Trained], data: Data) -> dict[str, float]:
    """Test accuracy of the uniform and of the greedy soup, the latter by loss on val, and how many it has."""
    states = [partial(_state, member) for member in sorted(members, key=lambda member: member.val.loss)]
    plain, measure = supernet.bare(), partial(score, split=data.val, batch_size=BATCH)
    uniform_soup(states, plain, measure)
    uniform = score(plain, data.test, BATCH).accuracy
    greedy = greedy_soup(states, plain, measure)
    return {"uniform": uniform, "greedy": score(plain, data.test, BATCH).accuracy, "greedy_members": len(greedy.members)}


def _state(member: Trained) -> dict[str, Tensor]:
    return member.state
