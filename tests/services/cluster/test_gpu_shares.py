"""GPUs and parts of them as Ray accounts for them, on a machine that may have none: who runs beside whom, and what each process is shown.

That a part bounds the memory that a process may take is `test_workload`'s.
"""

import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
import ray
import timm
import torch

from glora_core.backbones import adapted_layers
from glora_core.configs import encode
from glora_core.evaluation import SubnetScorer
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import TrainingSettings
from services.cluster.evaluator import evaluators
from services.cluster.resources import ResourcesUnavailable, Share
from services.cluster.rung import Task, train_rung
from services.cluster.speed import measure_speed
from services.cluster.training import train_supernet
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE
from tests.glora_core.conftest import make_toy_split
from tests.servers.driving import local_ray

pytestmark = pytest.mark.slow

GPUS = 2
HALF = Share(0, 0.5)
Seen = tuple[str, list[int], float]


def seen(*process: Any) -> Seen:
    """What a process is shown by Ray: the devices that CUDA would show it, those that are its own, and how much of one it holds."""
    context = ray.get_runtime_context()
    return os.environ["CUDA_VISIBLE_DEVICES"], ray.get_gpu_ids(), context.get_assigned_resources()["GPU"]


@dataclass(frozen=True, kw_only=True)
class Noting(Workload):
    """A workload that notes what the processes are shown which make a supernet of it."""

    notes: Path

    def supernet(self, *arguments: Any) -> Supernet:
        """What every one of them asks for first."""
        with self.notes.open("a") as file:
            file.write(f"{seen()!r}\n")
        return super().supernet(*arguments)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ray on this machine, told that there are two GPUs."""
    with local_ray(__name__, cpus=2, gpus=GPUS, forked=True):
        yield


@pytest.fixture
def noting(tmp_path: Path) -> Noting:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2).eval()
    return Noting(model, SearchSpace(adapted_layers(model)), make_toy_split(30), make_toy_split(12), "accuracy", notes=tmp_path / "notes")


def _train(noting: Noting, folder: Path, workers: int, share: Share) -> list[str]:
    """Train a supernet for two epochs; returns what the workers were shown."""
    state = train_supernet(
        ray.put(noting),
        TrainingSettings(epochs=2, batch_size=10),
        workers=workers,
        share=share,
        prefix="run-",
        attempt="1",
        patience_seconds=600.0,
        filesystem=fsspec.filesystem("file"),
        folder=str(folder),
        budget=700,
        on_epoch=lambda row: None,
    )
    assert state["epoch"] == 2
    return sorted(noting.notes.read_text().splitlines())


@pytest.fixture
def holding() -> Iterator[list[Any]]:
    """Actors that end with the test, and with them what they hold; a failed test would keep them otherwise."""
    actors: list[Any] = []
    yield actors
    for actor in actors:
        ray.kill(actor)


def test_evaluators_with_half_a_gpu_are_two_on_it_and_a_third_waits_for_one_to_go(noting: Noting, holding: list[Any]) -> None:
    plain = Workload(noting.plain, noting.space, noting.train, noting.val, noting.metric)
    supernet, config = plain.supernet(TrainingSettings()), noting.space.extreme(largest=True)
    start = evaluators(ray.put(plain.for_evaluation()), ray.put(supernet.trainable_state()), TrainingSettings(), HALF)
    holding.append(ray.remote(num_cpus=0, num_gpus=1)(Holder).remote())
    _, (taken,), _ = ray.get(holding[0].shown.remote())
    free = 1 - taken

    running = [start(), start()]
    holding += running
    assert ray.get([one.__ray_call__.remote(seen) for one in running]) == 2 * [(str(free), [free], 0.5)]
    waiting = start()
    holding.append(waiting)
    call = waiting.score.remote([encode(config)])
    assert ray.wait([call], timeout=3)[0] == []

    ray.kill(running[0])
    settle(Share())
    expected = SubnetScorer(supernet, deepcopy(plain.plain)).score(config, plain.val, BATCH_SIZE, metric=plain.metric)
    assert ray.get(call) == ray.get(running[1].score.remote([encode(config)])) == [expected]


class Holder:
    """Another job's process, which has a whole GPU."""

    def shown(self) -> Seen:
        return seen()


def test_training_worker_holds_the_part_of_a_gpu_that_its_job_asked_for(noting: Noting, tmp_path: Path) -> None:
    (shown,) = _train(noting, tmp_path, 1, HALF)

    assert shown in [repr((str(gpu), [gpu], 0.5)) for gpu in range(GPUS)]


def test_training_workers_hold_a_gpu_each_and_are_shown_those_of_their_node(noting: Noting, tmp_path: Path) -> None:
    assert _train(noting, tmp_path, 2, Share(0, 1)) == [repr(("0,1", [gpu], 1.0)) for gpu in range(GPUS)]


def test_trials_of_the_finals_hold_what_a_training_worker_does(noting: Noting, tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=1, batch_size=10, policy="fixed", fixed=encode(noting.space.extreme(largest=False)))
    results = dict[str, Any]()
    train_rung(
        ray.put(noting),
        {"one": Task(settings, None)},
        share=HALF,
        name="rung",
        filesystem=fsspec.filesystem("file"),
        folder=str(tmp_path),
        on_done=results.__setitem__,
    )

    assert list(results) == ["one"]
    assert noting.notes.read_text().strip() in [repr((str(gpu), [gpu], 0.5)) for gpu in range(GPUS)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU on this machine")
def test_job_whose_gpu_torch_does_not_find_ends_before_it_trains_and_says_what_to_do(noting: Noting) -> None:
    with pytest.raises(ResourcesUnavailable, match=r"training\.use_gpu: torch .* finds no GPU on node .* or leave use_gpu out"):
        measure_speed(ray.put(noting), TrainingSettings(epochs=1), HALF)
