"""The supernet trained by Ray Train: one or many workers, a checkpoint every few epochs, resumed after any loss.

Progress reaches the caller through a small actor, since Ray Train's controller runs elsewhere. The same actor tells the workers when
nobody has asked for their progress for too long: the caller hangs, another may have taken over, and they give the cluster back.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from fsspec import AbstractFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from glora_core.errors import Diverged, NotLearning
from glora_core.training import Probe, Progress, Trainer, TrainingSettings
from services.cluster.backend import Beating, Torch
from services.cluster.checkpoints import latest, load_state, save_state
from services.cluster.pausing import Asked, Paused, never
from services.cluster.progress_log import ProgressLog
from services.cluster.pulse import at_work, beat_in
from services.cluster.resources import Share
from services.cluster.scratch import scratch
from services.cluster.workload import Workload, settle

_CHECKPOINTS = 10
_POLL_SECONDS = 0.3
_CONTROLLER_POLL_SECONDS = "0.2"
"""A worker that reports waits for Ray Train's controller to look; its default of 2 s would dominate a small training."""
_HUNG_SECONDS = "60"
"""After so long without an answer a worker is lost; a thread beside the training answers. Ray Train's default is ten minutes."""


def train_supernet(
    workload: "ray.ObjectRef[Workload]",
    settings: TrainingSettings,
    *,
    workers: int,
    share: Share,
    prefix: str,
    attempt: str,
    patience_seconds: float,
    filesystem: AbstractFileSystem,
    folder: str,
    budget: int,
    on_epoch: Callable[[Progress], None],
    told: int | None = None,
    pausing: Asked = never,
) -> dict[str, Any]:
    """Train a supernet; returns the trainer's last state (`trainable`, `optimizer`, `epoch`) and all its epochs (`history`).

    It goes on from the last checkpoint of any attempt of the same prefix.

    Args:
        workload: reference to the backbone, space and splits.
        share: of the cluster, that each worker holds.
        prefix: that the names of the folders of all attempts at this training begin with.
        attempt: the rest of this attempt's.
        patience_seconds: how long this process may hang before the workers leave off, after the epoch in hand.
        filesystem, folder: where checkpoints go; must be reachable from every node.
        budget: of the subnets that are probed along the way, in trainable parameters.
        on_epoch: called in this process for each finished epoch.
        told: the last epoch that earlier attempts reported. What the checkpoint to go on from has beyond it, since workers may be
            ahead of a runner that is lost, is reported first; not if absent.
        pausing: whether the epoch in hand is to be the last for now.

    Raises:
        Paused: with a checkpoint of the last epoch that was reported.
        Diverged: a loss was not finite.
        NotLearning: half trained, and no better than guessing.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _CONTROLLER_POLL_SECONDS)
    os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", _HUNG_SECONDS)
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # it would warn workers of a node's end; they save often anyway
    start = latest(filesystem, folder, prefix)
    for row in start["history"] if start is not None and told is not None else ():
        if row["epoch"] > told:
            on_epoch(Progress(**row))
    if start is not None and start["epoch"] >= settings.epochs:  # whoever reached the end did not come to store it
        return start
    log = ray.remote(num_cpus=0)(ProgressLog).remote(patience_seconds)
    beat_in(log)
    started_from = [] if start is None else [ray.put(start)]
    trainer = _Trainer(
        _train_worker,
        torch_config=Torch(),
        train_loop_config={
            "workload": [workload],
            "start": started_from,
            "settings": settings.to_dict(),
            "share": share,
            "log": log,
            "budget": budget,
        },
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=share.use_gpu, resources_per_worker=share.bundle()),
        run_config=RunConfig(
            name=f"{prefix}{attempt}",
            storage_path=folder,
            storage_filesystem=PyFileSystem(FSSpecHandler(filesystem)),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=3, controller_failure_limit=3),
        ),
    )
    with _following(log, on_epoch, pausing):
        result = trainer.fit()
    if result.return_value is not None:
        raise result.return_value
    assert result.checkpoint is not None
    with result.checkpoint.as_directory() as local:
        state = load_state(Path(local))
    assert state is not None
    return state


_SPARED = (PlacementGroupCleanerCallback, DatasetsCallback)
"""Parts of Ray Train that are a process each, some seconds of a core. The first watches the controller and outlives a killed driver:
it asks Ray's dashboard whether the controller lives, and waits for ever where there is none; Ray removes a lost driver's placement
groups without it. The second hands out Ray's own datasets, of which there are none.
"""


class _Trainer(TorchTrainer):  # type: ignore[misc]
    """Ray Train without what a training here has no use for, all of whose processes beat."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [Beating(), *(callback for callback in callbacks if not isinstance(callback, _SPARED))]


@at_work
def _train_worker(config: dict[str, Any]) -> Diverged | NotLearning | Paused | None:
    """Runs in every worker; returns why training was given up, or left for now, if it was."""
    device = settle(config["share"])
    workload: Workload = ray.get(config["workload"][0])
    settings = TrainingSettings(**config["settings"])
    supernet = workload.supernet(settings).to(device)
    probe = Probe.of(supernet, workload.val.to(device), settings.epochs, settings.seed, config["budget"], settings.patience)
    trainer = Trainer(supernet, workload.train.to(device), settings, probe)
    history: list[dict[str, Any]] = []
    state = _reached(config["start"])
    if state is not None:
        history = state.pop("history")
        trainer.load_state(state)
    first = not dist.is_initialized() or dist.get_rank() == 0
    every = max(1, settings.epochs // _CHECKPOINTS)

    def report(progress: Progress) -> None:
        history.append(row := asdict(progress))
        last = _agreed(first and ray.get(config["log"].push.remote(row)), device) and not trainer.finished
        if progress.epoch % every == 0 or trainer.finished or last:
            _save(trainer.state() | {"history": history} if first else None, progress)
        if last:
            raise Paused

    try:
        if trainer.finished:  # early, by another attempt, which did not come to store it
            _save(trainer.state() | {"history": history} if first else None, Progress(**history[-1]))
        trainer.fit(report)
    except (Diverged, NotLearning, Paused) as error:  # the same in every worker, and in every further attempt
        return error
    return None


def _reached(start: "list[ray.ObjectRef[dict[str, Any]]]") -> dict[str, Any] | None:
    """The last checkpoint of this attempt, or else what it started from, if anything."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return ray.get(start[0]) if start else None
    with checkpoint.as_directory() as folder:
        return load_state(Path(folder))


def _save(state: dict[str, Any] | None, progress: Progress) -> None:
    """A checkpoint, which all workers report and the first one writes: the others have no state to give."""
    if state is None:
        ray.train.report({"epoch": progress.epoch})
        return
    with scratch() as folder:
        save_state(state, folder)
        ray.train.report({"epoch": progress.epoch, "loss": progress.loss}, checkpoint=Checkpoint.from_directory(folder))


def _agreed(told: bool, device: torch.device) -> bool:
    """What the first worker was told, in all workers."""
    if not dist.is_initialized():
        return told
    word = torch.tensor(int(told), device=device)
    dist.broadcast(word, 0)
    return bool(word.item())


class _following:
    """Calls `on_epoch` for what the log collects, from a thread, while the block runs; an error of the callback is raised at the end.

    Tells the log whether a pause is asked for, and of an error as if one were, so that nothing is trained that nobody can report.
    """

    def __init__(self, log: Any, on_epoch: Callable[[Progress], None], pausing: Asked) -> None:
        self._log, self._on_epoch, self._pausing = log, on_epoch, pausing
        self._done = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._done.set()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        last = False
        while not last and self._error is None:
            last = self._done.wait(_POLL_SECONDS)
            try:
                for row in ray.get(self._log.drain.remote(self._pausing())):
                    self._on_epoch(Progress(**row))
            except Exception as error:
                self._error = error
                self._log.drain.remote(True)  # this attempt is over, and the epoch in hand its last
