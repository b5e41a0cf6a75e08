"""The demo's input: scanned digits that ship inside scikit-learn, and a small ViT pretrained on half of the classes.

Digits 5–9 are the target task (500 train / 150 val / the rest test), digits 0–4 the pretraining task. Both are written
once into a cache folder in ordinary formats: PNG files in class folders, and a folder that timm loads as `local-dir:`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch.nn import functional as F

SPLITS = {"train": 500, "val": 150}
ARCHITECTURE = "vit_tiny_patch16_224"
MODEL_ARGS = {"img_size": 8, "patch_size": 2, "embed_dim": 64, "depth": 6, "num_heads": 4}
PRETRAINED_CFG = {
    "input_size": [3, 8, 8],
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "classifier": "head",
}


def write_target(folder: Path, seed: int = 0) -> Path:
    """Write digits 5–9 as `train/ val/ test/` class folders of PNG files; returns the folder. Does nothing if it is there."""
    if (folder / "test").is_dir():
        return folder
    images, labels = digits(range(5, 10))
    order = np.random.default_rng(seed).permutation(len(labels))
    ends = {"train": (0, 500), "val": (500, 650), "test": (650, len(labels))}
    for split, (start, end) in ends.items():
        for row in order[start:end]:
            path = folder / split / str(labels[row]) / f"{row:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[row]).save(path)
    return folder


def pretrain_backbone(folder: Path, epochs: int = 60, seed: int = 0) -> Path:
    """Train the demo's ViT on digits 0–4 and save it as timm's `local-dir:` layout; returns the folder. Cached."""
    if (folder / "config.json").is_file():
        return folder
    torch.manual_seed(seed)
    images, labels = digits(range(5))
    pixels = torch.from_numpy(images).float().div(255).sub(0.5).div(0.5)[:, None].expand(-1, 3, -1, -1)
    targets = torch.from_numpy(labels)
    model = timm.create_model(ARCHITECTURE, num_classes=5, **MODEL_ARGS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=epochs * -(-len(targets) // 64))
    for _ in range(epochs):
        for rows in torch.randperm(len(targets)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(pixels[rows]), targets[rows], label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": ARCHITECTURE, "num_classes": 5, "model_args": MODEL_ARGS, "pretrained_cfg": PRETRAINED_CFG}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def digits(classes: range) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 8, 8) as bytes 0–255 and labels (n,) as class values, of the given classes."""
    data = load_digits()
    keep = np.isin(data.target, list(classes))
    return (data.images[keep] * 255 / 16).round().astype(np.uint8), data.target[keep].astype(np.int64)


def main() -> None:
    """`python -m examples.digits FOLDER` writes both inputs below FOLDER."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write digits/ and backbone/")
    folder = parser.parse_args().folder
    print(write_target(folder / "digits"))
    print(pretrain_backbone(folder / "backbone"))


if __name__ == "__main__":
    main()
