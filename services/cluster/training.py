"""The supernet trained by Ray Train: one or many workers, a checkpoint every few epochs, resumed after any loss.

Progress reaches the caller through a small actor, since Ray Train's controller runs elsewhere.
"""

import os
import tempfile
import threading
from collections.abc import Callable
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

from glora_core.errors import Diverged, NotLearning
from glora_core.training import Probe, Progress, Trainer, TrainingSettings
from services.cluster.resources import Share
from services.cluster.workload import Workload, settle

_STATE = "state.pt"
_CHECKPOINTS = 10
_POLL_SECONDS = 0.3
_CONTROLLER_POLL_SECONDS = "0.2"
"""A worker that reports waits for Ray Train's controller to look; its default of 2 s would dominate a small training."""
_HUNG_SECONDS = "60"
"""After so long without an answer a worker is lost; a thread beside the training answers. Ray Train's default is ten minutes."""


class ProgressLog:
    """Collects epochs reported by the first worker until the caller fetches them."""

    def __init__(self) -> None:
        self._rows: list[Progress] = []

    def push(self, row: Progress) -> None:
        """Add a finished epoch."""
        self._rows.append(row)

    def drain(self) -> list[Progress]:
        """All epochs since the last call."""
        rows, self._rows = self._rows, []
        return rows


def train_supernet(
    workload: "ray.ObjectRef[Workload]",
    settings: TrainingSettings,
    *,
    workers: int,
    share: Share,
    run_name: str,
    filesystem: AbstractFileSystem,
    folder: str,
    budget: int,
    on_epoch: Callable[[Progress], None],
) -> dict[str, Any]:
    """Train a supernet; returns the trainer's last state (`trainable`, `optimizer`, `epoch`).

    A run of the same name in the same folder is resumed from its last checkpoint.

    Args:
        workload: reference to the backbone, space and splits.
        share: of the cluster, that each worker holds.
        filesystem, folder: where checkpoints go; must be reachable from every node.
        budget: of the subnets that are probed along the way, in trainable parameters.
        on_epoch: called in this process for each finished epoch.

    Raises:
        Diverged: a loss was not finite.
        NotLearning: half trained, and no better than guessing.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _CONTROLLER_POLL_SECONDS)
    os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", _HUNG_SECONDS)
    log = ray.remote(num_cpus=0)(ProgressLog).remote()
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"workload": [workload], "settings": settings.to_dict(), "share": share, "log": log, "budget": budget},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=share.use_gpu, resources_per_worker=share.bundle()),
        run_config=RunConfig(
            name=run_name,
            storage_path=folder,
            storage_filesystem=PyFileSystem(FSSpecHandler(filesystem)),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=3, controller_failure_limit=3),
        ),
    )
    with _following(log, on_epoch):
        result = trainer.fit()
    if result.return_value is not None:
        raise result.return_value
    assert result.checkpoint is not None
    with result.checkpoint.as_directory() as local:
        state: dict[str, Any] = torch.load(Path(local) / _STATE, map_location="cpu", weights_only=True)
    return state


def _train_worker(config: dict[str, Any]) -> Diverged | NotLearning | None:
    """Runs in every worker; returns why training was given up, if it was."""
    device = settle(config["share"])
    workload: Workload = ray.get(config["workload"][0])
    settings = TrainingSettings(**config["settings"])
    supernet = workload.supernet(settings).to(device)
    probe = Probe.of(supernet, workload.val.to(device), settings.epochs, settings.seed, config["budget"])
    trainer = Trainer(supernet, workload.train.to(device), settings, probe)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            trainer.load_state(torch.load(Path(folder) / _STATE, map_location="cpu", weights_only=True))
    first = not dist.is_initialized() or dist.get_rank() == 0
    every = max(1, settings.epochs // _CHECKPOINTS)

    def report(progress: Progress) -> None:
        if first:
            config["log"].push.remote(progress)
        if progress.epoch % every and progress.epoch != settings.epochs:
            return
        if not first:
            ray.train.report({"epoch": progress.epoch})
            return
        with tempfile.TemporaryDirectory() as folder:
            torch.save(trainer.state(), Path(folder) / _STATE)
            ray.train.report({"epoch": progress.epoch, "loss": progress.loss}, checkpoint=Checkpoint.from_directory(folder))

    try:
        trainer.fit(report)
    except (Diverged, NotLearning) as error:  # the same in every worker, and in every further attempt
        return error
    return None


class _following:
    """Calls `on_epoch` for what the log collects, from a thread, while the block runs; an error of the callback is raised at the end."""

    def __init__(self, log: Any, on_epoch: Callable[[Progress], None]) -> None:
        self._log, self._on_epoch = log, on_epoch
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
                for row in ray.get(self._log.drain.remote()):
                    self._on_epoch(row)
            except Exception as error:
                self._error = error
