"""Soups of finalists as Ray tasks: which average is best on val, and its score on another split.

Every task holds a few copies of the backbone, however many finalists there are.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
import torch
from torch import Tensor, nn

from glora_core.configs import SubnetConfig
from glora_core.data.split import Split
from glora_core.evaluation import Score, score
from glora_core.finals.soup import best_soup, uniform_soup
from glora_core.training import TrainingSettings
from services.cluster.pulse import at_work
from services.cluster.resources import Share
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE


@dataclass(frozen=True)
class Ingredient:
    """A subnet that was trained alone: how, to what state, and which it is."""

    settings: TrainingSettings
    state: Mapping[str, Tensor]
    config: SubnetConfig


def cook(
    workload: "ray.ObjectRef[Workload]", offered: Sequence[Ingredient], basin: Sequence[int], share: Share
) -> tuple[tuple[int, ...], Score]:
    """The best soup of some subnets, given the best first: places of its members in order, and its score on val by the job's metric.

    Args:
        basin: places of those that come from slices of one supernet.
    """
    found: tuple[tuple[int, ...], Score] = ray.get(_remote(_cook, share).remote(workload, _put(offered), basin, share))
    return found


def score_soup(
    workload: "ray.ObjectRef[Workload]",
    members: Sequence[Ingredient],
    split: "ray.ObjectRef[Split]",
    share: Share,
    among: Sequence[int] = (),
) -> Score:
    """The score of the average of some subnets on a split; see `score_split`."""
    found: Score = ray.get(_remote(_score, share).remote(workload, _put(members), split, share, among))
    return found


def _remote(task: Any, share: Share) -> Any:
    return ray.remote(max_retries=3, **share.options())(task)


def _put(ingredients: Sequence[Ingredient]) -> "list[ray.ObjectRef[Ingredient]]":
    """References, so that a task fetches one at a time."""
    return [ray.put(ingredient) for ingredient in ingredients]


@at_work
def _cook(
    workload: Workload, offered: "list[ray.ObjectRef[Ingredient]]", basin: Sequence[int], share: Share
) -> tuple[tuple[int, ...], Score]:
    device = settle(share)
    plain, val = deepcopy(workload.plain).to(device), workload.val.to(device)

    def measure(network: nn.Module) -> Score:
        return score(network, val, BATCH_SIZE, metric=workload.metric)

    soup = best_soup([partial(_merged, workload, one, device) for one in offered], plain, measure, basin)
    return soup.members, soup.score


@at_work
def _score(workload: Workload, members: "list[ray.ObjectRef[Ingredient]]", split: Split, share: Share, among: Sequence[int]) -> Score:
    device = settle(share)
    plain, examples = deepcopy(workload.plain).to(device), split.to(device)

    def measure(network: nn.Module) -> Score:
        return score(network, examples, BATCH_SIZE, among=among, metric=workload.metric)

    return uniform_soup([partial(_merged, workload, one, device) for one in members], plain, measure).score


def _merged(workload: Workload, reference: "ray.ObjectRef[Ingredient]", device: torch.device) -> dict[str, Tensor]:
    one = ray.get(reference)
    return workload.supernet(one.settings, one.state).to(device).merged_state(one.config, torch.float64)
