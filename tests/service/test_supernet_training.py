"""A supernet trained by Ray Train: it is what training in this process gives, also where it ends before its last epoch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import ray
import timm
import torch

from glora_core.backbones import adapted_layers
from glora_core.data.images import ImageSplit
from glora_core.space import SearchSpace
from glora_core.training import Probe, Progress, Trainer, TrainingSettings
from services.cluster.resources import Share
from services.cluster.training import train_supernet
from services.cluster.workload import Workload, settle
from tests.glora_core.conftest import make_toy_split

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def workload() -> Workload:
    """A tiny ViT; what it is judged by is the very opposite of what it is trained on, so that its loss soon rises."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2).eval()
    train = make_toy_split(30)
    val = ImageSplit(train.pixels, (train.labels + 1) % 3, train.mean, train.std)
    return Workload(model, SearchSpace(adapted_layers(model)), train, val, "accuracy")


def test_a_training_that_stops_early_ends_with_the_best_numbers_and_tells_its_epochs(
    cluster: None, workload: Workload, tmp_path: Path
) -> None:
    settings = TrainingSettings(epochs=60, batch_size=10, learning_rate=0.01, warmup_epochs=0, drop_path=0.2, patience=3)
    told: list[Progress] = []

    state = train_supernet(
        ray.put(workload),
        settings,
        workers=1,
        share=Share(),
        run_name="early",
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
