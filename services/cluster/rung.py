"""One rung of the finals: subnets trained alone, each as a trial of Ray Tune. It is over when all of them are.

Ray Tune starts the trials, as many at once as there is room for, and starts a lost one again; it decides nothing. What a trial
reached comes back through the folder that training checkpoints go to, and is handed over as soon as the trial is done. A trial that
takes long leaves checkpoints there, from which it goes on after whatever loss or pause, in this rung or in that of another attempt.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from fsspec import AbstractFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from torch import Tensor, nn

from glora_core.configs import decode
from glora_core.errors import Diverged
from glora_core.evaluation import Score
from glora_core.finals.run import taught_by, train_alone
from glora_core.training import Progress, TrainingSettings
from services.cluster.checkpoints import latest_of_each, load_state, save_state
from services.cluster.pausing import Asked, Paused, never
from services.cluster.pulse import at_work
from services.cluster.resources import Share
from services.cluster.scratch import scratch
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE

_RESULT = "result.pt"
_SAVE_SECONDS = 15.0
MAX_FAILURES = 3
"""How often a trial is started again."""
_QUIET = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1", "RAY_AIR_NEW_OUTPUT": "0"}
"""No tables of progress, no result files that nobody reads, and no handler of signals in the runner's place."""


@dataclass(frozen=True)
class Task:
    """A subnet to train alone: settings of policy `fixed`, and the state of a supernet that has it alone; from scratch if None."""

    settings: TrainingSettings
    start: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Trained:
    """A subnet trained alone: its trainable state, its training history and its score on val."""

    state: dict[str, Tensor]
    history: list[Progress]
    val: Score


@dataclass(frozen=True)
class Origin:
    """The supernet that subnets were cut from: how it was trained, and to what state. Its own subnets teach them."""

    settings: TrainingSettings
    state: Mapping[str, Tensor]


OnDone = Callable[[str, Trained | Diverged], None]


def train_rung(
    workload: "ray.ObjectRef[Workload]",
    tasks: Mapping[str, Task],
    *,
    share: Share,
    name: str,
    filesystem: AbstractFileSystem,
    folder: str,
    on_done: OnDone,
    origin: Origin | None = None,
    on_checkpoint: Callable[[], None] = lambda: None,
    pausing: Asked = never,
    save_seconds: float = _SAVE_SECONDS,
) -> None:
    """Train several subnets, each alone; returns when all are done.

    Args:
        workload: reference to the backbone, space and splits.
        tasks: by a key of the caller's, which stands for all that decides what training comes to: whoever trains under the same key in
            the same `folder` goes on from the furthest checkpoint there.
        share: of the cluster, that each trial holds.
        name: of a folder in `folder` that nothing else uses; it is the caller's to remove.
        filesystem, folder: must be reachable from every node.
        on_done: called in this process, with a task's key, as soon as it is trained, or has diverged; what it raises ends the rung.
        origin: needed where a task's settings have teachers.
        on_checkpoint: called in this process when a trial has left a checkpoint; what it raises ends the rung.
        pausing: whether to leave off for now: trials that run end with their next checkpoint, and none is started.
        save_seconds: how long a trial trains between two checkpoints, at least.

    Raises:
        Paused: trials are left.
        RayError, or what the training raised: a trial failed once more than `MAX_FAILURES`.
    """
    if pausing():  # Ray Tune takes seconds to start, before it asks
        raise Paused
    os.environ.update(_QUIET)
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)  # it misses the files that nobody reads
    keys = sorted(tasks)
    reached = latest_of_each(filesystem, folder, keys)
    begun = [ray.put((tasks[key], reached[key])) for key in keys]
    trial = tune.with_parameters(_train, workload=workload, share=share, origin=ray.put(origin), begun=begun, save_seconds=save_seconds)
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": share.cpus, "gpu": share.gpus}),
        param_space={"place": tune.grid_search(list(range(len(keys))))},
        # a process that has started serves one trial after another: 4.6 instead of 9.4 s for four empty trials on two busy cores
        tune_config=tune.TuneConfig(
            scheduler=_Pausable(pausing), reuse_actors=True, trial_dirname_creator=lambda started: keys[started.config["place"]]
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=folder,
            storage_filesystem=PyFileSystem(FSSpecHandler(filesystem)),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[_Results(keys, on_done, on_checkpoint, pausing)],
            verbose=0,
        ),
    )
    errors = tuner.fit().errors
    if errors:
        raise errors[0]


class _Pausable(FIFOScheduler):  # type: ignore[misc]
    """Starts trials in their order; while a pause is asked for it starts none, and ends each that has left a checkpoint."""

    def __init__(self, pausing: Asked) -> None:
        super().__init__()
        self._pausing = pausing

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for `_Results`."""
        return {}

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Called by Ray Tune when there is room for another trial."""
        return None if self._pausing() else super().choose_trial_to_run(tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
        """Called by Ray Tune with every report, each of which brings a checkpoint."""
        return str(TrialScheduler.STOP if self._pausing() else super().on_trial_result(tune_controller, trial, result))


class _Results(tune.Callback):  # type: ignore[misc]
    """Hands over each trial's result. Ray Tune would take an error in that for the trial's own, so it is raised between two steps."""

    def __init__(self, keys: list[str], on_done: OnDone, on_checkpoint: Callable[[], None], pausing: Asked) -> None:
        self._keys, self._on_done, self._on_checkpoint, self._pausing = keys, on_done, on_checkpoint, pausing
        self._error: Exception | None = None
        self._left = False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray Tune writes down how to restore a run, and nobody restores this one."""
        return {}

    def on_trial_save(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Ray Tune in the process that waits for it, after each checkpoint."""
        try:
            self._on_checkpoint()
        except Exception as error:
            self._error = error

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Ray Tune in the process that waits for it."""
        try:
            with trial.checkpoint.as_directory() as local:
                file = Path(local) / _RESULT
                found = torch.load(file, map_location="cpu", weights_only=True) if file.is_file() else None
            if found is None:
                self._left = True
            else:
                self._on_done(self._keys[trial.config["place"]], _unpacked(found))
        except Exception as error:
            self._error = error

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Ray Tune between two steps."""
        if self._error is not None:
            raise self._error
        states = {trial.status for trial in trials}
        if Trial.RUNNING not in states and (self._left or (self._pausing() and Trial.PENDING in states)):
            raise Paused


@at_work
def _train(
    config: dict[str, Any],
    workload: Workload,
    share: Share,
    origin: Origin | None,
    begun: "list[ray.ObjectRef[tuple[Task, dict[str, Any] | None]]]",
    save_seconds: float,
) -> None:
    """Runs in a trial's process."""
    task, reached = ray.get(begun[config["place"]])
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as local:
            reached = load_state(Path(local))
        if reached is None:
            return  # lost between its last report and its end: there is nothing left to do
    device, saved = settle(share), time.monotonic()

    def save(state: Callable[[], dict[str, Any]]) -> None:
        nonlocal saved
        if time.monotonic() - saved >= save_seconds:
            with scratch() as local:
                save_state(state(), local)
                tune.report({}, checkpoint=tune.Checkpoint.from_directory(local))
            saved = time.monotonic()

    alone = workload.supernet(task.settings, task.start).to(device)
    try:
        plain, train, val = workload.plain.to(device), workload.train.to(device), workload.val.to(device)
        teacher = _teacher(workload, origin, task.settings.teachers, device)
        how = {"metric": workload.metric, "teacher": teacher, "reached": reached, "on_epoch": save}
        history, score = train_alone(alone, train, val, task.settings, BATCH_SIZE, plain, **how)
        found = {"state": alone.trainable_state(), "history": [asdict(row) for row in history], "val": asdict(score)}
    except Diverged as error:  # it would in every further attempt
        found = {"diverged": str(error)}
    with scratch() as local:
        torch.save(found, local / _RESULT)
        tune.report({}, checkpoint=tune.Checkpoint.from_directory(local))


def _teacher(workload: Workload, origin: Origin | None, teachers: Sequence[str], device: torch.device) -> nn.Module | None:
    if origin is None or not teachers:
        return None
    supernet = workload.supernet(origin.settings, origin.state).to(device)
    return taught_by(supernet, [decode(code) for code in teachers])


def _unpacked(found: dict[str, Any]) -> Trained | Diverged:
    if "diverged" in found:
        return Diverged(found["diverged"])
    return Trained(found["state"], [Progress(**row) for row in found["history"]], Score(**found["val"]))
