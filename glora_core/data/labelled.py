"""A labelled data set of images or texts, and what can be said of it: fingerprint, class balance, duplicates, warnings.

Pure functions of what a scan found; nothing here reads a file. Without torch, since the API tells its users these facts.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from glora_core.data.decoding import Encoded

SHOWN = 5
"""How many classes or pairs of files a message names."""


class Labelled(Protocol):
    """An example of any kind: its class index."""

    @property
    def label(self) -> int:
        """Indexes the data set's classes."""


ExampleT = TypeVar("ExampleT", bound=Labelled)


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled image: its path relative to the data folder, and its class index."""

    path: str
    label: int


Splits = dict[str, tuple[Example, ...]]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Examples of two splits that are the same, byte for byte.

    Attributes:
        splits: their names.
        count: how many examples of the second split are in the first one too.
        examples: a few pairs of places (an image's path, a text's file and line), the first split's first.
    """

    splits: tuple[str, str]
    count: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LabelledSet(ABC, Generic[ExampleT]):
    """A checked data set, whatever its examples are; `kind` is what one of them is called.

    Attributes:
        root: the folder or file that holds it.
        classes: class names; an example's label indexes them.
        splits: examples of `train`, `val` and, if there is one, `test`; of a further test set `test` alone.
    """

    kind: ClassVar[str]

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[ExampleT, ...]]

    @property
    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """Every file that was read."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 (hex) over class names and every split, example and label."""

    @abstractmethod
    def contents(self, example: ExampleT) -> str:
        """What two examples have in common if and only if they are the same, byte for byte."""

    @abstractmethod
    def place(self, example: ExampleT) -> str:
        """Where an example comes from, for people."""

    @abstractmethod
    def with_split(self, split: str, examples: tuple[ExampleT, ...], notes: tuple[str, ...] = ()) -> Self:
        """The same with other examples of a split, and more notes."""

    @property
    def told(self) -> tuple[str, ...]:
        """What else is worth telling, a sentence each."""
        return ()

    @property
    def names(self) -> tuple[str, ...]:
        """What `examples` takes."""
        return (*self.splits, "train+val")

    def examples(self, split: str) -> tuple[ExampleT, ...]:
        """The examples of a split, or of `train+val`. Raises KeyError for any other name."""
        if split == "train+val":
            return self.splits["train"] + self.splits["val"]
        return self.splits[split]

    @cached_property
    def counts(self) -> dict[str, tuple[int, ...]]:
        """Examples per class, in the order of `classes`, by split."""
        found = {split: Counter(example.label for example in examples) for split, examples in self.splits.items()}
        return {split: tuple(counter[label] for label in range(len(self.classes))) for split, counter in found.items()}

    @cached_property
    def duplicates(self) -> tuple[Duplicates, ...]:
        """Equal examples of different splits, by pair of splits; none where there are none."""
        places = {split: {self.contents(e): self.place(e) for e in reversed(examples)} for split, examples in self.splits.items()}
        found = []
        for first, second in combinations(self.splits, 2):
            shared = [e for e in self.splits[second] if self.contents(e) in places[first]]
            if shared:
                pairs = tuple((places[first][self.contents(e)], self.place(e)) for e in shared[:SHOWN])
                found.append(Duplicates((first, second), len(shared), pairs))
        return tuple(found)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a careful person would ask about before training, a sentence each: duplicates, classes without examples, notes."""
        lacks = {split: lacking(self.classes, counts) for split, counts in self.counts.items() if 0 in counts}
        missing = (f"{split} has no {self.kind}s of {absent}" for split, absent in lacks.items())
        return (*(_told(found, self.kind) for found in self.duplicates), *missing, *self.told)

    def facts(self) -> dict[str, Any]:
        """All of this for a job, a manifest or a model card, as plain JSON values."""
        return {
            "kind": f"{self.kind}s",
            "fingerprint": self.fingerprint,
            "classes": list(self.classes),
            "splits": {split: len(examples) for split, examples in self.splits.items()},
            "counts": {split: list(counts) for split, counts in self.counts.items()},
            "duplicates": [
                {"splits": list(found.splits), f"{self.kind}s": found.count, "examples": [list(pair) for pair in found.examples]}
                for found in self.duplicates
            ],
            "warnings": list(self.warnings),
        }


AnyData = LabelledSet[Any]
"""A data set of images or of texts."""


@dataclass(frozen=True)
class ImageFolder(LabelledSet[Example]):
    """A checked data set of image files.

    Attributes:
        root: the folder.
        classes: class names; an example's label indexes them.
        splits: examples of `train`, `val` and, if there is one, `test`.
        hashes: sha256 (hex) of every image file's bytes, by path.
        union: examples of `train+val` where the folder lists them itself, as VTAB-1K does.
        notes: what else is worth telling, a sentence each.
    """

    kind: ClassVar[str] = "image"

    hashes: Mapping[str, str]
    union: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over class names and every split, path, label and image's bytes; also of a list of `train+val` that has others."""
        total = hashlib.sha256("\n".join(self.classes).encode())
        differs = self.union and Counter(self.union) != Counter(self.splits["train"] + self.splits["val"])
        for split, examples in [*sorted(self.splits.items()), ("train+val", self.union if differs else ())]:
            for example in examples:
                total.update(f"\n{split}\t{example.path}\t{example.label}\t{self.hashes[example.path]}".encode())
        return total.hexdigest()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every image file."""
        return tuple(self.root / path for path in self.hashes)

    def source(self, example: Example) -> Path | Encoded:
        """Where an image's bytes are."""
        return self.root / example.path

    def contents(self, example: Example) -> str:
        """The hash of the file's bytes."""
        return self.hashes[example.path]

    def place(self, example: Example) -> str:
        """The path relative to the folder."""
        return example.path

    @property
    def told(self) -> tuple[str, ...]:
        """The notes."""
        return self.notes

    def examples(self, split: str) -> tuple[Example, ...]:
        """The examples of a split, or of `train+val`, which the folder may list itself. Raises KeyError for any other name."""
        return self.union if split == "train+val" and self.union else super().examples(split)

    def with_split(self, split: str, examples: tuple[Example, ...], notes: tuple[str, ...] = ()) -> Self:
        """The same with other images of a split, and more notes; a listed `train+val` no longer holds."""
        return replace(self, splits=self.splits | {split: examples}, union=(), notes=(*self.notes, *notes))


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


def _told(found: Duplicates, kind: str) -> str:
    (first, second), (one, other) = found.splits, found.examples[0]
    return f"{in_both(found.count, second, first, kind)}, such as {other!r} ({one!r} in {first})"
