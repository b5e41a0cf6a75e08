"""A rung of the finals on real Ray: trials give what training in this process gives, and what becomes of those that fail."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import ray
import timm
import torch

from glora_core.backbones import adapted_layers
from glora_core.configs import decode, encode
from glora_core.data.images import ImageSplit
from glora_core.errors import Diverged
from glora_core.finals.run import taught_by, train_alone
from glora_core.methods import method_config
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import TrainingSettings
from services.cluster import rung
from services.cluster.pausing import Paused
from services.cluster.resources import Share
from services.cluster.rung import Origin, Task, Trained, train_rung
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE
from services.scheduler.failures import classify
from services.store.errors import LeaseLost
from tests.glora_core.conftest import make_toy_split
from tests.servers.driving import local_ray

pytestmark = pytest.mark.slow

Results = dict[str, Trained | Diverged]


@dataclass(frozen=True, kw_only=True)
class Troubled(Workload):
    """A workload that has trouble in every trial until so many attempts have been made.

    Args:
        notes: a file with a letter for each attempt.
        fatal: whether the trial's process dies of it.
    """

    notes: Path
    attempts: int
    fatal: bool

    def supernet(self, *arguments: Any) -> Supernet:
        """What a trial asks for first."""
        with self.notes.open("a") as file:
            file.write("x")
        if len(self.notes.read_text()) <= self.attempts:
            if self.fatal:
                os._exit(1)
            raise MemoryError("no memory for this")
        return super().supernet(*arguments)


@dataclass(frozen=True)
class Counting(ImageSplit):
    """A split that counts the batches taken from it, and takes its process down with one of them, once.

    Args:
        notes: a file with a letter for each batch.
        fatal: the batch, counted from 1, that ends the process.
    """

    notes: Path = Path()
    fatal: int = 0

    def take(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a training asks for in each step, and for the calibration before the first."""
        with self.notes.open("a") as file:
            file.write("x")
        if len(self.notes.read_text()) == self.fatal:
            os._exit(1)
        return super().take(indices)

    def to(self, device: torch.device) -> "Counting":
        """Itself, on the CPU."""
        return self


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, with room for two trials at once."""
    with local_ray(__name__, cpus=2, forked=True):
        yield


@pytest.fixture(scope="module")
def workload() -> Workload:
    """A tiny ViT over images whose colour tells their class."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2).eval()
    return Workload(model, SearchSpace(adapted_layers(model)), make_toy_split(30), make_toy_split(12), "macro-accuracy")


@pytest.fixture
def tasks(workload: Workload) -> dict[str, Task]:
    """Three subnets from scratch."""
    training = TrainingSettings(epochs=2, batch_size=10, learning_rate=0.01)
    configs = {name: encode(method_config(workload.space, name)) for name in ("bitfit", "ssf", "lora")}
    return {name: Task(replace(training, policy="fixed", fixed=code), None) for name, code in configs.items()}


@pytest.fixture
def train(cluster: None, tmp_path: Path) -> Callable[..., Results]:
    """Trains tasks as a rung; returns what was handed over."""

    def run(
        workload: Workload,
        tasks: dict[str, Task],
        on_done: Callable[[str], None] = lambda key: None,
        origin: Origin | None = None,
        name: str = "rung",
        **how: Any,
    ) -> Results:
        found: Results = {}

        def keep(key: str, result: Trained | Diverged) -> None:
            assert key not in found
            found[key] = result
            on_done(key)

        files = fsspec.filesystem("file")
        where = {"name": name, "filesystem": files, "folder": str(tmp_path)}
        train_rung(ray.put(workload), tasks, share=Share(), on_done=keep, origin=origin, **where, **how)
        return found

    return run


def test_trials_give_what_training_in_this_process_gives_bit_for_bit(
    train: Callable[..., Results], workload: Workload, tasks: dict[str, Task]
) -> None:
    settle(Share())
    settings = TrainingSettings(epochs=1)
    supernet, taught = workload.supernet(settings), tasks["lora"].settings
    teachers = tuple(encode(workload.space.extreme(largest=large)) for large in (True, False))
    tasks["taught"] = Task(replace(taught, start="s", teachers=teachers), supernet.cut(decode(taught.fixed or "")).trainable_state())
    found = train(workload, tasks, origin=Origin(settings, supernet.trainable_state()))

    assert found.keys() == tasks.keys()
    for key, task in tasks.items():
        alone, trial = workload.supernet(task.settings, task.start), found[key]
        teacher = taught_by(supernet, [decode(code) for code in task.settings.teachers])
        how = {"metric": workload.metric, "teacher": teacher}
        history, score = train_alone(alone, workload.train, workload.val, task.settings, BATCH_SIZE, **how)
        assert isinstance(trial, Trained)
        assert (trial.val, [row.loss for row in trial.history]) == (score, [row.loss for row in history])
        state = alone.trainable_state()
        assert state.keys() == trial.state.keys()
        assert all(torch.equal(value, trial.state[name]) for name, value in state.items())


def _long(workload: Workload, tasks: dict[str, Task], tmp_path: Path, fatal: int = 0) -> tuple[Workload, dict[str, Task], Path]:
    """LoRA for 12 epochs in two cycles, of three batches each, and where the batches are counted."""
    notes, whole = tmp_path / "batches", workload.train
    assert isinstance(whole, ImageSplit)
    split = Counting(whole.pixels, whole.labels, whole.mean, whole.std, notes=notes, fatal=fatal)
    task = Task(replace(tasks["lora"].settings, epochs=12, cycles=2), None)
    return replace(workload, train=split), {"lora": task}, notes


def _as_if_undisturbed(found: Trained | Diverged, workload: Workload, task: Task) -> None:
    settle(Share())
    alone = workload.supernet(task.settings, task.start)
    history, score = train_alone(alone, workload.train, workload.val, task.settings, BATCH_SIZE, metric=workload.metric)
    assert isinstance(found, Trained)
    assert (found.val, [row.loss for row in found.history]) == (score, [row.loss for row in history])
    assert all(torch.equal(value, found.state[name]) for name, value in alone.trainable_state().items())


def test_a_trial_whose_process_dies_goes_on_from_its_last_checkpoint(
    train: Callable[..., Results], workload: Workload, tasks: dict[str, Task], tmp_path: Path
) -> None:
    dying, long, notes = _long(workload, tasks, tmp_path, fatal=30)

    saved = list[int]()
    found = train(dying, long, save_seconds=0, on_checkpoint=lambda: saved.append(len(notes.read_text())))

    assert len(saved) >= 11, "one after each epoch but the last"
    assert 38 <= len(notes.read_text()) <= 44, "36 batches, one to calibrate on in each process, and those of an epoch again"
    _as_if_undisturbed(found["lora"], workload, long["lora"])


def test_a_pause_ends_a_trial_with_a_checkpoint_and_another_attempt_goes_on_from_there(
    train: Callable[..., Results], workload: Workload, tasks: dict[str, Task], tmp_path: Path
) -> None:
    counting, long, notes = _long(workload, tasks, tmp_path)

    with pytest.raises(Paused):
        train(counting, long, save_seconds=0, pausing=lambda: notes.exists() and len(notes.read_text()) > 10)
    begun = len(notes.read_text())
    found = train(counting, long, save_seconds=0, name="another")

    assert begun < 36
    assert 37 <= len(notes.read_text()) <= 44
    _as_if_undisturbed(found["lora"], workload, long["lora"])


def test_a_rung_is_not_begun_while_a_pause_is_asked_for(
    train: Callable[..., Results], workload: Workload, tasks: dict[str, Task], tmp_path: Path
) -> None:
    with pytest.raises(Paused):
        train(workload, tasks, pausing=lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_a_trial_that_diverges_is_handed_over_as_such_and_the_others_go_on(
    train: Callable[..., Results], workload: Workload, tasks: dict[str, Task]
) -> None:
    tasks["lora"] = Task(replace(tasks["lora"].settings, learning_rate=1e30), None)

    found = train(workload, tasks)

    assert {key: type(result) for key, result in found.items()} == {"bitfit": Trained, "ssf": Trained, "lora": Diverged}


def test_a_trial_whose_process_dies_is_started_again(
    train: Callable[..., Results], workload: Workload, tasks: dict[str, Task], tmp_path: Path
) -> None:
    dying = Troubled(**vars(workload), notes=tmp_path / "notes", attempts=2, fatal=True)

    found = train(dying, {"lora": tasks["lora"]})

    assert isinstance(found["lora"], Trained)
    assert (tmp_path / "notes").read_text() == "xxx"


@pytest.mark.parametrize(("fatal", "reason"), [(False, "out_of_memory"), (True, "worker_lost")], ids=["raises", "dies"])
def test_a_trial_that_fails_too_often_ends_the_rung_with_its_reason(
    fatal: bool,
    reason: str,
    train: Callable[..., Results],
    workload: Workload,
    tasks: dict[str, Task],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rung, "MAX_FAILURES", 1)
    failing = Troubled(**vars(workload), notes=tmp_path / "notes", attempts=9, fatal=fatal)

    with pytest.raises(Exception) as raised:
        train(failing, {"lora": tasks["lora"]})

    assert classify(raised.value) == reason
    assert (tmp_path / "notes").read_text() == "xx"


def test_a_runner_that_may_not_store_a_result_leaves_the_rung_at_once(
    train: Callable[..., Results], workload: Workload, tasks: dict[str, Task]
) -> None:
    handed: list[str] = []

    def store(key: str) -> None:
        handed.append(key)
        raise LeaseLost("another runner owns the job")

    with pytest.raises(LeaseLost):
        train(workload, tasks, store)
    assert len(handed) < len(tasks)
