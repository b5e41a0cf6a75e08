"""One subnet scored on one split, as a Ray task: an exported model or a baseline on test, or a finalist of another job on val."""

from collections.abc import Sequence
from typing import Any

import ray
from torch import Tensor

from glora_core.configs import SubnetConfig
from glora_core.data.images import ImageSplit
from glora_core.evaluation import Score, SubnetScorer
from glora_core.training import TrainingSettings
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE


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
    resources: dict[str, Any] = {"num_cpus": 0, "num_gpus": 1} if use_gpu else {"num_cpus": 1}
    task = ray.remote(max_retries=3, **resources)(_score)
    found: Score = ray.get(task.remote(workload, settings, state, config, split, use_gpu, among))
    return found


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
