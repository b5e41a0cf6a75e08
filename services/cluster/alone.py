"""Single subnets trained alone, as Ray tasks: finalists and known methods. And one subnet scored on one split."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from torch import Tensor

from glora_core.configs import SubnetConfig, decode
from glora_core.data.images import ImageSplit
from glora_core.errors import Diverged
from glora_core.evaluation import Score, SubnetScorer
from glora_core.training import Progress, Trainer, TrainingSettings
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE


@dataclass(frozen=True)
class Trained:
    """A subnet trained alone: its trainable state, its training history and its score on val."""

    state: dict[str, Tensor]
    history: list[Progress]
    val: Score


def train_alone(
    workload: "ray.ObjectRef[Workload]", recipes: Mapping[str, TrainingSettings], start: dict[str, Tensor], use_gpu: bool
) -> Iterator[tuple[str, Trained | Diverged]]:
    """Train several subnets, each alone, as many at once as the cluster has room for; yields each as it is done, or diverged.

    Args:
        recipes: settings with policy `fixed`, by a key of the caller's.
        start: trainable state that those with a `start` begin from.
    """
    state = ray.put(start)
    pending = {_task(_train, use_gpu).remote(workload, settings.to_dict(), state, use_gpu): key for key, settings in recipes.items()}
    while pending:
        ready, _ = ray.wait(list(pending), num_returns=1)
        yield pending.pop(ready[0]), ray.get(ready[0])


def score_split(
    workload: "ray.ObjectRef[Workload]",
    settings: TrainingSettings,
    state: dict[str, Tensor],
    config: SubnetConfig,
    split: "ray.ObjectRef[ImageSplit] | None",
    use_gpu: bool,
    among: Sequence[int] = (),
) -> Score:
    """The score of one subnet on one split, such as the exported model on test, by the workload's metric.

    Args:
        split: the workload's val if none is given.
        among: ascending labels that answers are chosen from, all if empty.
    """
    found: Score = ray.get(_task(_score, use_gpu).remote(workload, settings, state, config, split, use_gpu, among))
    return found


def _task(function: Callable[..., Any], use_gpu: bool) -> Any:
    resources: dict[str, Any] = {"num_cpus": 0, "num_gpus": 1} if use_gpu else {"num_cpus": 1}
    return ray.remote(max_retries=3, **resources)(function)


def _train(workload: Workload, settings: dict[str, Any], start: dict[str, Tensor], use_gpu: bool) -> Trained | Diverged:
    device = settle(use_gpu)
    recipe = TrainingSettings(**settings)
    assert recipe.fixed is not None
    supernet = workload.supernet(recipe, start if recipe.start else None).to(device)
    history: list[Progress] = []
    try:
        Trainer(supernet, workload.train.to(device), recipe).fit(history.append)
    except Diverged as error:
        return error
    scorer = SubnetScorer(supernet, workload.plain.to(device))
    val = scorer.score(decode(recipe.fixed), workload.val.to(device), BATCH_SIZE, metric=workload.metric)
    return Trained(supernet.trainable_state(), history, val)


def _score(
    workload: Workload,
    settings: TrainingSettings,
    state: dict[str, Tensor],
    config: SubnetConfig,
    split: ImageSplit | None,
    use_gpu: bool,
    among: Sequence[int],
) -> Score:
    device = settle(use_gpu)
    supernet = workload.supernet(settings, state).to(device)
    examples = (workload.val if split is None else split).to(device)
    scorer = SubnetScorer(supernet, workload.plain.to(device))
    return scorer.score(config, examples, BATCH_SIZE, among=among, metric=workload.metric)
