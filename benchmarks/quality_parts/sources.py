"""Where a task's examples come from: a CSV file with fixed splits, of texts or of images.

Few-shot training examples are drawn by the run's seed, so that the spread over seeds includes the draw; `val` is always the same,
and `test` is a draw that never changes.
"""

import csv
import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

from glora_core import backbones
from glora_core.backbones import BackboneSpec
from glora_core.data.images import load_split
from glora_core.data.labelled import Example, ImageFolder
from glora_core.data.split import Split
from glora_core.data.text import classify
from glora_core.errors import DataInvalid
from glora_core.sampling import stream

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
        return hashlib.sha256(f"{sha256(self.file)} {self.train} {self.shots} {TEST}".encode()).hexdigest()

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
        folder = ImageFolder(self.table.file.parent, tuple(self.table.classes), splits, {})
        fixed = _fixed_images(folder.root, folder.classes, splits["val"], splits["test"], transform)
        return Data(load_split(folder, "train", transform), *fixed, len(folder.classes))


@lru_cache(maxsize=4)
def _fixed_images(
    root: Path, classes: tuple[str, ...], val: tuple[Example, ...], test: tuple[Example, ...], transform: backbones.Transform
) -> tuple[Split, Split]:
    """`val` and `test`, which all runs of a task share."""
    folder = ImageFolder(root, classes, {"val": val, "test": test}, {})
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


@lru_cache
def sha256(file: Path) -> str:
    """sha256 (hex) of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
