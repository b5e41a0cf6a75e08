"""The evaluator pool: Ray actors that keep backbone, supernet and validation tensors loaded and score batches of subnets.

An evaluator returns numbers and knows no database. One that dies is replaced and its batch is scored again; scoring
is deterministic, so who scored a subnet never shows in the result.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError
from torch import Tensor

from glora_core.configs import decode
from glora_core.evaluation import Score, SubnetScorer
from glora_core.precision import Precision
from glora_core.training import TrainingSettings
from services.cluster.pausing import Asked, never
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE

_BATCHES_PER_EVALUATOR = 4
_MAX_LOSSES_PER_BATCH = 3


class WorkerLost(RuntimeError):
    """The same batch lost its evaluator several times: something outside the search kills them."""


class Evaluator:
    """Scores subnets of one supernet on the validation split."""

    def __init__(
        self, workload: Workload, state: dict[str, Tensor], settings: TrainingSettings, use_gpu: bool, precision: Precision
    ) -> None:
        device = settle(use_gpu)
        supernet = workload.supernet(settings, state).to(device)
        self._scorer = SubnetScorer(supernet, workload.plain.to(device), precision)
        self._val, self._metric = workload.val.to(device), workload.metric

    def score(self, codes: Sequence[str]) -> list[Score]:
        """Scores of subnet configs given by their canonical texts, in order."""
        return [self._scorer.score(decode(code), self._val, BATCH_SIZE, metric=self._metric) for code in codes]

    def pid(self) -> int:
        """Process id of this actor."""
        return os.getpid()


@dataclass
class _Batch:
    positions: range
    codes: list[str]
    losses: int = 0


@dataclass
class EvaluatorPool:
    """A fixed number of evaluators over one trained supernet.

    Args:
        workload: reference to backbone, space and splits.
        state: reference to the supernet's trainable state.
        settings: how that supernet was trained.
        size: number of actors.
        use_gpu: whether each holds a GPU instead of a CPU.
        precision: of forward passes.
    """

    workload: "ray.ObjectRef[Workload]"
    state: "ray.ObjectRef[dict[str, Tensor]]"
    settings: TrainingSettings
    size: int
    use_gpu: bool = False
    precision: Precision = "float32"
    _actors: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._actors = [self._start() for _ in range(self.size)]

    def score(self, codes: Sequence[str]) -> list[Score]:
        """Scores of subnet configs, in order.

        Raises:
            WorkerLost: a batch lost its evaluator more than a few times.
        """
        found = {position: score for positions, scores in self.batches(codes) for position, score in zip(positions, scores, strict=True)}
        return [found[position] for position in range(len(codes))]

    def batches(self, codes: Sequence[str], pausing: Asked = never) -> Iterator[tuple[range, list[Score]]]:
        """Positions and scores of one batch after another, as they are done; a pause lets those in hand be the last.

        Raises:
            WorkerLost: a batch lost its evaluator more than a few times.
        """
        size = max(1, -(-len(codes) // (self.size * _BATCHES_PER_EVALUATOR)))
        waiting = [_Batch(range(i, min(i + size, len(codes))), list(codes[i : i + size])) for i in range(0, len(codes), size)]
        idle, running = list(range(self.size)), dict[Any, tuple[int, _Batch]]()
        while running or (waiting and not pausing()):
            while waiting and idle and not pausing():
                slot, batch = idle.pop(), waiting.pop(0)
                running[self._actors[slot].score.remote(batch.codes)] = (slot, batch)
            ready, _ = ray.wait(list(running), num_returns=1)
            slot, batch = running.pop(ready[0])
            idle.append(slot)
            try:
                scores: list[Score] = ray.get(ready[0])
            except RayActorError as error:
                waiting.insert(0, self._replace(slot, batch, error))
            else:
                yield batch.positions, scores

    def pids(self) -> list[int]:
        """Process ids of the evaluators."""
        found: list[int] = ray.get([actor.pid.remote() for actor in self._actors])
        return found

    def close(self) -> None:
        """End all evaluators."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _start(self) -> Any:
        resources: dict[str, Any] = {"num_cpus": 0, "num_gpus": 1} if self.use_gpu else {"num_cpus": 1}
        return ray.remote(**resources)(Evaluator).remote(self.workload, self.state, self.settings, self.use_gpu, self.precision)

    def _replace(self, slot: int, batch: _Batch, error: RayActorError) -> _Batch:
        batch.losses += 1
        if batch.losses > _MAX_LOSSES_PER_BATCH:
            raise WorkerLost(f"a batch of {len(batch.codes)} candidates lost its evaluator {batch.losses} times: {error}") from error
        self._actors[slot] = self._start()
        return batch
