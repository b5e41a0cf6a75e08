"""Supernet training by several workers on real Ray: a worker that is lost costs the epochs since the last checkpoint, and nothing else;
so does a runner that hangs, and its workers write nothing where its successor does.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import pytest
import ray
import timm
import torch

from glora_core.backbones import adapted_layers
from glora_core.data.images import ImageSplit
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import Probe, Progress, Trainer, TrainingSettings
from services.cluster.checkpoints import latest
from services.cluster.pausing import Paused
from services.cluster.resources import Share
from services.cluster.training import train_supernet
from services.cluster.workload import Workload, settle
from tests.glora_core.conftest import make_toy_split
from tests.servers.driving import local_ray

pytestmark = pytest.mark.slow

SETTINGS = TrainingSettings(epochs=80, batch_size=10)
KILL_AT = 20


@dataclass(frozen=True, kw_only=True)
class Noting(Workload):
    """A workload that notes the processes which make a supernet of it: the training workers."""

    notes: Path

    def supernet(self, *arguments: Any) -> Supernet:
        """What a worker asks for first."""
        with self.notes.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return super().supernet(*arguments)

    def pids(self) -> list[int]:
        """Process ids of all workers so far."""
        return [int(line) for line in self.notes.read_text().split()]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, with room for two workers that hold half a CPU each, and no more."""
    with local_ray(__name__, cpus=1, forked=True):
        yield


def _train(
    folder: Path,
    on_epoch: Callable[[Noting, Progress], None] = lambda workload, row: None,
    attempt: str = "1",
    pausing: Callable[[], bool] = lambda: False,
    patience_seconds: float = 600.0,
    told: int | None = None,
) -> tuple[dict[str, Any], Noting]:
    """Train with two workers; gives the last state, and who trained."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2).eval()
    workload = Noting(model, SearchSpace(adapted_layers(model)), make_toy_split(30), make_toy_split(12), "accuracy", notes=folder / "notes")
    state = train_supernet(
        ray.put(workload),
        SETTINGS,
        workers=2,
        share=Share(0.5),
        prefix="run-",
        attempt=attempt,
        patience_seconds=patience_seconds,
        filesystem=fsspec.filesystem("file"),
        folder=str(folder),
        budget=700,
        on_epoch=lambda row: on_epoch(workload, row),
        told=told,
        pausing=pausing,
    )
    return state, workload


@pytest.fixture(scope="module")
def calm(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a training comes to that nothing disturbs."""
    state, two = _train(tmp_path_factory.mktemp("calm"))
    assert (len(two.pids()), state["epoch"]) == (2, SETTINGS.epochs)
    return state


def _same(state: dict[str, Any], calm: dict[str, Any]) -> bool:
    return all(torch.equal(calm["trainable"][name], state["trainable"].pop(name)) for name in calm["trainable"]) and not state["trainable"]


def test_training_that_lost_a_worker_ends_with_the_numbers_of_one_that_did_not(calm: dict[str, Any], tmp_path: Path) -> None:
    epochs, killed = list[int](), list[int]()

    def kill_once(workload: Noting, row: Progress) -> None:
        epochs.append(row.epoch)
        if row.epoch >= KILL_AT and not killed:
            killed.append(workload.pids()[1])
            os.kill(killed[0], signal.SIGKILL)

    disturbed, workload = _train(tmp_path, kill_once)

    assert len(workload.pids()) in (4, 6), "the worker was not killed in time, or more than one start failed after it"
    again = next(later for earlier, later in pairwise(epochs) if later != earlier + 1)
    assert again > 1 and again % (SETTINGS.epochs // 10) == 1, "resumed after a checkpoint"
    assert disturbed["epoch"] == SETTINGS.epochs
    assert _same(disturbed, calm)


def test_workers_whose_runner_hangs_leave_off_and_another_attempt_goes_on_in_a_folder_of_its_own(
    calm: dict[str, Any], tmp_path: Path
) -> None:
    def hang(workload: Noting, row: Progress) -> None:
        time.sleep(4 if row.epoch == 1 else 0)

    with pytest.raises(Paused):
        _train(tmp_path, hang, patience_seconds=0.5)
    left = sorted(path for path in (tmp_path / "run-1").rglob("*"))
    epochs = list[int]()
    state, _ = _train(tmp_path, lambda workload, row: epochs.append(row.epoch), attempt="2")

    assert 1 < epochs[0] < SETTINGS.epochs
    assert epochs == list(range(epochs[0], SETTINGS.epochs + 1))
    assert [row["epoch"] for row in state["history"]] == list(range(1, SETTINGS.epochs + 1))
    assert sorted(path for path in (tmp_path / "run-1").rglob("*")) == left
    assert _same(state, calm)

    third, _ = _train(tmp_path, lambda workload, row: pytest.fail("nothing was left to train"), attempt="3")
    assert third["epoch"] == SETTINGS.epochs
    assert _same(third, calm)

    late = list[int]()
    _train(tmp_path, lambda workload, row: late.append(row.epoch), attempt="4", told=SETTINGS.epochs - 3)
    assert late == list(range(SETTINGS.epochs - 2, SETTINGS.epochs + 1)), "what nobody has reported yet"


def test_epoch_that_cannot_be_reported_is_the_last(cluster: None, tmp_path: Path) -> None:
    def fail(workload: Noting, row: Progress) -> None:
        if row.epoch >= KILL_AT:
            raise ConnectionError("the database is away")

    with pytest.raises(ConnectionError):
        _train(tmp_path, fail)

    reached = latest(fsspec.filesystem("file"), str(tmp_path), "run-")
    assert reached is not None
    assert KILL_AT <= reached["epoch"] < SETTINGS.epochs


def _misjudged() -> Workload:
    """A tiny ViT; what it is judged by is the very opposite of what it is trained on, so that its loss soon rises."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2).eval()
    train = make_toy_split(30)
    val = ImageSplit(train.pixels, (train.labels + 1) % 3, train.mean, train.std)
    return Workload(model, SearchSpace(adapted_layers(model)), train, val, "accuracy")


def test_a_training_that_stops_early_ends_with_the_best_numbers_and_tells_its_epochs(cluster: None, tmp_path: Path) -> None:
    workload = _misjudged()
    settings = TrainingSettings(epochs=60, batch_size=10, learning_rate=0.01, warmup_epochs=0, drop_path=0.2, patience=3)
    told: list[Progress] = []

    state = train_supernet(
        ray.put(workload),
        settings,
        workers=1,
        share=Share(),
        prefix="early-",
        attempt="1",
        patience_seconds=600,
        filesystem=fsspec.filesystem("file"),
        folder=str(tmp_path),
        budget=workload.space.maximum,
        on_epoch=told.append,
    )

    settle(Share())
    supernet, expected = workload.supernet(settings), list[Progress]()
    probe = Probe.of(supernet, workload.val, 60, budget=workload.space.maximum, patience=3)
    Trainer(supernet, workload.train, settings, probe).fit(expected.append)
    assert len(expected) < 60
    assert [replace(row, seconds=0.0) for row in told] == [replace(row, seconds=0.0) for row in expected]
    assert state["epoch"] == len(expected)
    assert all(torch.equal(value, state["trainable"][name]) for name, value in supernet.trainable_state().items())
