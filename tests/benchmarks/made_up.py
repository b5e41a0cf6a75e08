"""A task that trains in a fraction of a second: images whose class is how bright they are, and a ViT of one block."""

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from benchmarks.quality_parts.sources import Data
from benchmarks.quality_parts.tasks import Task
from glora_core.backbones import BackboneSpec
from glora_core.data.images import ImageSplit

VIT = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
TRANSFORM = {
    "input_size": [3, 8, 8],
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "classifier": "head",
}


class Shades:
    """Images whose class is how bright they are."""

    images = True
    size = 12

    def fingerprint(self) -> str:
        return "shades"

    def load(self, spec: BackboneSpec, seed: int) -> Data:
        return Data(*(self._split(count, seed) for count in (self.size, 12, 12)), classes=3)

    def _split(self, count: int, seed: int) -> ImageSplit:
        labels = torch.arange(count) % 3
        noise = torch.randint(0, 30, (count, 3, 8, 8), generator=torch.Generator().manual_seed(seed))
        return ImageSplit((labels.view(-1, 1, 1, 1) * 80 + noise).to(torch.uint8), labels, (0.5,) * 3, (0.5,) * 3)


def make_task(folder: Path) -> Task:
    """The task, with its backbone's weights put into a folder."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **VIT)
    save_file(model.state_dict(), folder / "model.safetensors")
    described = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": VIT, "pretrained_cfg": TRANSFORM}
    (folder / "config.json").write_text(json.dumps(described))
    return Task("shades/vit", BackboneSpec(f"local-dir:{folder}"), Shades(), "random")
