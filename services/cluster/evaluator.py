"""The evaluator: a Ray actor that keeps backbone, supernet and validation split loaded, and scores subnets.

It returns numbers and knows no database. What it loads comes from the object store, where a node has one copy for all of its evaluators.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import ray
from torch import Tensor

from glora_core.configs import decode
from glora_core.data.split import Split
from glora_core.evaluation import Score, SubnetScorer
from glora_core.precision import Precision
from glora_core.training import TrainingSettings
from services.cluster.pulse import beat
from services.cluster.resources import Share
from services.cluster.work import VAL
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE


class Evaluator:
    """Scores subnets of one supernet on the validation split, and on what a second objective is measured on."""

    def __init__(
        self, workload: Workload, state: dict[str, Tensor], settings: TrainingSettings, share: Share, precision: Precision
    ) -> None:
        beat(busy=True)
        device = settle(share)
        supernet = workload.supernet(settings, state).to(device)
        self._scorer = SubnetScorer(supernet, workload.plain.to(device), precision)
        self._metric, second = workload.metric, workload.second
        self._splits: dict[str, tuple[Split, Sequence[int]]] = {VAL: (workload.val.to(device), ())}
        if second is not None:
            self._splits[second.key] = second.examples.to(device), second.among

    def score(self, codes: Sequence[str], split: str = VAL) -> list[Score]:
        """Scores of subnet configs given by their canonical texts, in order, on val or on what the second objective is measured on."""
        examples, among = self._splits[split]
        return [self._scorer.score(decode(code), examples, BATCH_SIZE, among=among, metric=self._metric) for code in codes]

    def pid(self) -> int:
        """Process id of this actor."""
        return os.getpid()


def evaluators(
    workload: "ray.ObjectRef[Workload]",
    state: "ray.ObjectRef[dict[str, Tensor]]",
    settings: TrainingSettings,
    share: Share,
    precision: Precision = "float32",
) -> Callable[[], Any]:
    """What starts one evaluator after another, for the pool.

    Args:
        workload: reference to backbone, space and splits; of the latter train is not used.
        state: reference to the supernet's trainable state.
        settings: how that supernet was trained.
        share: of the cluster, that each evaluator holds.
        precision: of forward passes.
    """
    actor = ray.remote(**share.options())(Evaluator)
    return lambda: actor.remote(workload, state, settings, share, precision)
