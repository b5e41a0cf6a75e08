"""Measuring how fast a job will train, with Ray left out: whatever its training is, it can be timed."""

from typing import Any

import pytest
import timm
import torch

from glora_core.backbones import adapted_layers
from glora_core.space import SearchSpace
from glora_core.training import TrainingSettings
from services.cluster.resources import Share
from services.cluster.speed import _measure
from services.cluster.workload import Workload
from tests.glora_core.conftest import make_toy_split


@pytest.mark.parametrize(
    "asked", [{}, {"warmup_epochs": 5}, {"epochs": 5, "warmup_epochs": 5}, {"patience": 3}, {"policy": "full-sandwich"}]
)
def test_every_training_can_be_timed(asked: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2).eval()
    workload = Workload(model, SearchSpace(adapted_layers(model)), make_toy_split(30), make_toy_split(12), "accuracy")

    speed = _measure(workload, TrainingSettings(batch_size=10, **asked), Share())

    assert speed.step.at(10) > 0
    assert speed.score.at(12) > 0
