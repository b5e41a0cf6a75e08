"""A subnet as a plain checkpoint: merged weights under timm's own keys, timm's config file, and a manifest.

The folder loads with `timm.create_model("local-dir:FOLDER", pretrained=True)`, and its `model.safetensors` with
`timm.create_model(architecture, checkpoint_path=…, num_classes=…, **model_args)`; none of our code is needed.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import Tensor, nn

import glora_core
from glora_core.backbones import Transform
from glora_core.configs import SubnetConfig, config_hash, encode
from glora_core.data.images import ImageSplit
from glora_core.errors import ExportMismatch
from glora_core.supernet import Supernet

WEIGHTS, CONFIG, MANIFEST = "model.safetensors", "config.json", "manifest.json"
BOUND = 1024 * torch.finfo(torch.float32).eps
"""Largest accepted difference of merged and unmerged logits, as a share of the largest logit: 1,024 float32 ulps."""


@dataclass(frozen=True, slots=True)
class Export:
    """A written checkpoint: its folder, and the measured difference between merged and unmerged logits (relative)."""

    folder: Path
    merge_error: float


def export_checkpoint(
    folder: Path,
    supernet: Supernet,
    plain: nn.Module,
    config: SubnetConfig,
    classes: tuple[str, ...],
    transform: Transform,
    check: ImageSplit,
) -> Export:
    """Merge a config, verify it against the unmerged supernet, and write weights and timm's config file.

    Args:
        folder: created if needed.
        supernet: the trained supernet.
        plain: an unadapted network of the same architecture with the right number of classes.
        config: the subnet to export.
        classes: class names, in the order of the head's outputs.
        transform: the input transform that the checkpoint expects.
        check: images on which merged and unmerged logits are compared.

    Raises:
        ExportMismatch: the two differ by more than `BOUND`.
    """
    state = supernet.merged_state(config)
    missing, unexpected = plain.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ExportMismatch(f"merged weights do not fit the bare architecture: missing {missing}, unexpected {unexpected}")
    error = merge_error(supernet, plain.eval(), config, check)
    if not error <= BOUND:  # also refuses NaN
        raise ExportMismatch(f"merged and unmerged logits differ by {error:.2e} of the largest logit; the bound is {BOUND:.2e}")
    folder.mkdir(parents=True, exist_ok=True)
    model_config = {"label_names": list(classes), "num_classes": len(classes)}
    data_config = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(transform).items()}
    save_for_hf(plain, str(folder), model_config=model_config, safe_serialization=True, data_config=data_config)
    return Export(folder, error)


@torch.inference_mode()
def merge_error(supernet: Supernet, plain: nn.Module, config: SubnetConfig, check: ImageSplit, images: int = 64) -> float:
    """Largest absolute difference of merged and unmerged logits over a few images, relative to the largest logit."""
    supernet.eval()
    supernet.set_config(config)
    batch, _ = check.take(torch.arange(min(images, len(check)), device=check.labels.device))
    unmerged, merged = supernet(batch), plain(batch)
    return float((unmerged - merged).abs().max() / unmerged.abs().max().clamp_min(1e-12))


def write_manifest(folder: Path, supernet: Supernet, config: SubnetConfig, facts: Mapping[str, Any]) -> Path:
    """Write `manifest.json` beside the weights: what the checkpoint is, how it came about, and its hash.

    Args:
        facts: what only the caller knows: backbone, data fingerprint, budget, seeds, settings, metrics.
    """
    timm_config = json.loads((folder / CONFIG).read_text())
    manifest = {
        "format": "glora-manifest/1",
        "architecture": timm_config["architecture"],
        "model_args": timm_config.get("model_args", {}),
        "classes": timm_config["label_names"],
        "subnet": {
            "hash": config_hash(config),
            "code": encode(config),
            "parameters": supernet.space.parameters(config),
            "layers": {name: layer.code for name, layer in supernet.space.named(config)},
        },
        "weights": {"file": WEIGHTS, "sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(), "dtype": "float32"},
        "versions": versions(),
        **facts,
    }
    path = folder / MANIFEST
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    return path


def versions() -> dict[str, str]:
    """Versions of everything that takes part in the numbers."""
    return {
        "glora": glora_core.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
    }


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a trainable state as safetensors."""
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a trainable state written by `save_state`."""
    return load_file(path)
