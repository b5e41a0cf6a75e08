"""What these tests' jobs are given: handwritten digits of 8×8 pixels, a tiny ViT with random weights, the smallest useful request."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_PER_CLASS = {"train": 12, "val": 100, "test": 20}
"""A large val, so that a generation is long enough to be hit in its middle."""


def save_digits(folder: Path) -> Path:
    """scikit-learn's digits as an image folder with splits; returns the folder."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(10):
        pictures = iter((digits.images[digits.target == label] * 15).astype(np.uint8))
        for split, count in _PER_CLASS.items():
            place = folder / split / f"digit{label}"
            place.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(next(pictures)).save(place / f"{index}.png")
    return folder


def save_tiny_vit(folder: Path) -> str:
    """A ViT of two blocks for 8×8 images as timm's `local-dir:` layout; returns its name."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    arguments = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **arguments)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    pretrained = {"input_size": [3, 8, 8], "interpolation": "bicubic", "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    pretrained |= {"classifier": "head"}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 10, "model_args": arguments, "pretrained_cfg": pretrained}
    (folder / "config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def smallest_request(data: Path, backbone: str, seed: int = 7) -> dict[str, Any]:
    """A job of seconds that has every phase: a training with checkpoints, four generations, two trials on Ray Tune, a test score."""
    return {
        "name": f"chaos-{seed}",
        "backbone": {"name": backbone},
        "data": {"path": str(data)},
        "budget": 700,
        "training": {"epochs": 24, "batch_size": 50, "learning_rate": 0.01, "augment": []},
        "search": {"strategy": "evolution", "population": 6, "generations": 4, "parents": 3, "evaluators": 2},
        "finals": {"candidates": 3, "learning_rates": [0.01], "epochs": [40], "scratch_epochs": 0},
        "seed": seed,
    }
