"""`manifest.json`: what a checkpoint is, how it came about, and its hash."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import timm
import torch

import glora_core
from glora_core.configs import SubnetConfig, config_hash, encode
from glora_core.export.checkpoint import CONFIG, MANIFEST, WEIGHTS
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet


def write_manifest(folder: Path, supernet: Supernet, config: SubnetConfig, facts: Mapping[str, Any]) -> Path:
    """Write `manifest.json` beside the weights: what the checkpoint is, how it came about, and its hash.

    Args:
        facts: what only the caller knows: backbone, data fingerprint, budget, seeds, settings, metrics.
    """
    return _write(folder, {"subnet": _subnet(supernet.space, config)}, facts)


def write_soup_manifest(folder: Path, members: Sequence[tuple[SearchSpace, SubnetConfig]], facts: Mapping[str, Any]) -> Path:
    """As `write_manifest`, of a checkpoint whose weights are the average of several merged subnets.

    `soup.parameters` is what was trained for it in all: the sum over its members, each of which kept the budget by itself.

    Args:
        members: a space that has the config, and the config, of each.
        facts: see `write_manifest`.
    """
    subnets = [_subnet(space, config) for space, config in members]
    return _write(folder, {"soup": {"parameters": sum(subnet["parameters"] for subnet in subnets), "members": subnets}}, facts)


def _subnet(space: SearchSpace, config: SubnetConfig) -> dict[str, Any]:
    return {
        "hash": config_hash(config),
        "code": encode(config),
        "parameters": space.parameters(config),
        "layers": {name: layer.code for name, layer in space.named(config)},
    }


def _write(folder: Path, adapted: Mapping[str, Any], facts: Mapping[str, Any]) -> Path:
    written = json.loads((folder / CONFIG).read_text())
    labels = {int(number): name for number, name in written.get("id2label", {}).items()}
    library = "timm" if "architecture" in written else "transformers"
    manifest = {
        "format": "glora-manifest/1",
        "library": library,
        "architecture": written.get("architecture") or written["architectures"][0],
        "model_args": written.get("model_args", {}),
        "classes": written.get("label_names") or [labels[number] for number in sorted(labels)],
        **adapted,
        "weights": {"file": WEIGHTS, "sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(), "dtype": "float32"},
        "versions": versions() if library == "timm" else versions("transformers", "tokenizers"),
        **facts,
    }
    path = folder / MANIFEST
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    return path


def versions(*others: str) -> dict[str, str]:
    """Versions of everything that takes part in the numbers; of other packages too where those do."""
    return {
        "glora": glora_core.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
        **{name: version(name) for name in others},
    }
