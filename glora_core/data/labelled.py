"""A labelled data set of image files, and what can be said of it: fingerprint, class balance, duplicates, warnings.

Pure functions of what a scan found; nothing here reads a file. Without torch, since the API tells its users these facts.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

SHOWN = 5
"""How many classes or pairs of files a message names."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled image: its path relative to the data folder, and its class index."""

    path: str
    label: int


Splits = dict[str, tuple[Example, ...]]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Files of two splits that are the same, byte for byte.

    Attributes:
        splits: their names.
        images: how many images of the second split are in the first one too.
        examples: a few pairs of paths, the first split's first.
    """

    splits: tuple[str, str]
    images: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ImageFolder:
    """A checked data set.

    Attributes:
        root: the folder.
        classes: class names; an example's label indexes them.
        splits: examples of `train`, `val` and, if there is one, `test`.
        hashes: sha256 (hex) of every image file's bytes, by path.
        union: examples of `train+val` where the folder lists them itself, as VTAB-1K does.
        notes: what else is worth telling, a sentence each.
    """

    root: Path
    classes: tuple[str, ...]
    splits: Splits
    hashes: Mapping[str, str]
    union: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over class names and every split, path, label and image's bytes."""
        total = hashlib.sha256("\n".join(self.classes).encode())
        for split, examples in sorted(self.splits.items()):
            for example in examples:
                total.update(f"\n{split}\t{example.path}\t{example.label}\t{self.hashes[example.path]}".encode())
        return total.hexdigest()

    @property
    def names(self) -> tuple[str, ...]:
        """What `examples` takes."""
        return (*self.splits, "train+val")

    def examples(self, split: str) -> tuple[Example, ...]:
        """The examples of a split, or of `train+val`. Raises KeyError for any other name."""
        if split == "train+val":
            return self.union or self.splits["train"] + self.splits["val"]
        return self.splits[split]

    @cached_property
    def counts(self) -> dict[str, tuple[int, ...]]:
        """Images per class, in the order of `classes`, by split."""
        found = {split: Counter(example.label for example in examples) for split, examples in self.splits.items()}
        return {split: tuple(counter[label] for label in range(len(self.classes))) for split, counter in found.items()}

    @cached_property
    def duplicates(self) -> tuple[Duplicates, ...]:
        """Equal files of different splits, by pair of splits; none where there are none."""
        paths = {split: {self.hashes[e.path]: e.path for e in reversed(examples)} for split, examples in self.splits.items()}
        found = []
        for first, second in combinations(self.splits, 2):
            shared = [e.path for e in self.splits[second] if self.hashes[e.path] in paths[first]]
            if shared:
                pairs = tuple((paths[first][self.hashes[path]], path) for path in shared[:SHOWN])
                found.append(Duplicates((first, second), len(shared), pairs))
        return tuple(found)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a careful person would ask about before training, a sentence each: duplicates, classes without images, notes."""
        missing = (f"{split} has no images of {lacking(self.classes, counts)}" for split, counts in self.counts.items() if 0 in counts)
        return (*(_told(found) for found in self.duplicates), *missing, *self.notes)

    def facts(self) -> dict[str, Any]:
        """All of this for a job, a manifest or a model card, as plain JSON values."""
        return {
            "fingerprint": self.fingerprint,
            "classes": list(self.classes),
            "splits": {split: len(examples) for split, examples in self.splits.items()},
            "counts": {split: list(counts) for split, counts in self.counts.items()},
            "duplicates": [
                {"splits": list(found.splits), "images": found.images, "examples": [list(pair) for pair in found.examples]}
                for found in self.duplicates
            ],
            "warnings": list(self.warnings),
        }


def several(names: Sequence[str]) -> str:
    """The first few of some names, separated by commas."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def in_both(count: int, of: str, other: str, what: str = "image") -> str:
    """That so many images (or texts) of one split, or test set, are in another one too."""
    return f"{count:,} {of} {what + ' is' if count == 1 else what + 's are'} in {other} too, byte for byte"


def lacking(classes: Sequence[str], counts: Sequence[int]) -> str:
    """How many classes have a count of zero, and the first few of them."""
    absent = [name for name, count in zip(classes, counts, strict=True) if not count]
    return f"{len(absent):,} of {len(classes):,} classes: {several(absent)}"


def _told(found: Duplicates) -> str:
    (first, second), (one, other) = found.splits, found.examples[0]
    return f"{in_both(found.images, second, first)}, such as {other!r} ({one!r} in {first})"
