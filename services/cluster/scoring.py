"""One subnet scored on one split, as a Ray task: an exported model or a baseline on test."""

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
    split: "ray.ObjectRef[ImageSplit]",
    use_gpu: bool,
    among: Sequence[int] = (),
) -> Score:
    """The score of one subnet on one split, such as the exported model on test, among some labels or all."""
    resources: dict[str, Any] = {"num_cpus": 0, "num_gpus": 1} if use_gpu else {"num_cpus": 1}
    task = ray.remote(max_retries=3, **resources)(_score)
    found: Score = ray.get(task.remote(workload, settings, state, config, split, use_gpu, among))
    return found


def _score(
    workload: Workload,
    settings: TrainingSettings,
    state: dict[str, Tensor],
    config: SubnetConfig,
    split: ImageSplit,
    use_gpu: bool,
    among: Sequence[int],
) -> Score:
    device = settle(use_gpu)
    supernet = workload.supernet(settings, state).to(device)
    return SubnetScorer(supernet, workload.plain.to(device)).score(config, split.to(device), BATCH_SIZE, among)
