"""Labelled texts from tables: CSV with a header, JSON lines, or a folder that Hugging Face `datasets` saved; without torch.

A table has columns of texts and labels, and either a column that tells the split (`train`, `val` or `validation`, `test`) or a file
for each split in one folder. Every refusal names the file and the line.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from glora_core.data.labelled import LabelledSet, several
from glora_core.data.labels import plain, short
from glora_core.data.rows import READERS, SPLITS, Columns, Row, file_rows
from glora_core.data.saved import is_saved, saved_files, saved_rows
from glora_core.errors import DataInvalid

_WHOLE = "data"
"""Name, without its end, of a folder's one file that has all splits."""


@dataclass(frozen=True, slots=True)
class TextExample:
    """One labelled text; the label indexes the classes. `place` is the file and line it comes from."""

    text: str
    label: int
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class TextTable(LabelledSet[TextExample]):
    """A checked data set of texts.

    Attributes:
        root: the file or folder.
        classes: class names, sorted, as numbers where all are; in their own order where `datasets` has stored one.
        splits: examples of `train`, `val` and, if there is one, `test`.
        read: every file that was read.
        notes: what else is worth telling, a sentence each.
    """

    kind: ClassVar[str] = "text"

    read: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over class names and every split, text and label."""
        rows = ([split, e.text, e.label] for split, examples in sorted(self.splits.items()) for e in examples)
        total = hashlib.sha256(json.dumps(self.classes).encode())
        for row in rows:
            total.update(f"\n{json.dumps(row)}".encode())
        return total.hexdigest()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read."""
        return self.read

    def contents(self, example: TextExample) -> str:
        """The text itself."""
        return example.text

    def place(self, example: TextExample) -> str:
        """The file and the line."""
        return example.place

    @property
    def told(self) -> tuple[str, ...]:
        """The notes, and texts of train that have several labels."""
        labels = defaultdict[str, dict[int, str]](dict)
        for example in self.splits.get("train", ()):
            labels[example.text].setdefault(example.label, example.place)
        torn = [list(found.values()) for found in labels.values() if len(found) > 1]
        if not torn:
            return self.notes
        return (*self.notes, f"{len(torn):,} texts of train have more than one label, such as that of {torn[0][0]} and {torn[0][1]}")

    def with_split(self, split: str, examples: tuple[TextExample, ...], notes: tuple[str, ...] = ()) -> Self:
        """The same with other texts of a split, and more notes."""
        return replace(self, splits=self.splits | {split: examples}, notes=(*self.notes, *notes))


def read_table(path: str | os.PathLike[str], columns: Columns | None = None) -> TextTable:
    """Read and check labelled texts.

    Args:
        columns: what the columns are called, where not `text`, `label` and `split`.

    Raises:
        DataInvalid: no such file or folder, an unknown layout, a column that is missing, a row without text or label, a
            missing split, fewer than two classes, or a class that `train` lacks.
        LibraryMissing: the folder is one of `datasets`, which is not installed.
    """
    root, columns = Path(path), columns or Columns()
    if root.is_file():
        return _table(root, list(file_rows(root, None, columns)), columns, [root])
    if not root.is_dir():
        raise DataInvalid(f"data {str(path)!r} does not exist; {columns.accepted()}")
    if is_saved(root):
        rows, names = saved_rows(root, columns)
        return _table(root, rows, columns, saved_files(root), names)
    files = _files(root, columns)
    rows = [row for file, split in files for row in file_rows(file, split, columns)]
    return _table(root, rows, columns, [file for file, _ in files])


def read_test_table(path: str | os.PathLike[str], data: TextTable, columns: Columns | None = None) -> TextTable:
    """Read and check a further test set over the classes of a data set, or some of them; its only split is `test`.

    Args:
        path: a file of which every row counts, whatever split it names; a folder with such a file named `test`; or a folder that
            `datasets` saved, of one table or with a split `test`.

    Raises:
        DataInvalid, LibraryMissing: as `read_table`; or a class that `data` lacks.
    """
    root, columns = Path(path), columns or Columns()
    accepted = (
        f"accepted are a .csv or .jsonl file with columns {columns.text} and {columns.label}, or a folder with such a file named test"
    )
    if not root.exists():
        raise DataInvalid(f"test set {str(path)!r} does not exist; {accepted}")
    bare = replace(columns, split="")
    if root.is_file():
        rows, files = list(file_rows(root, "test", bare)), [root]
    elif is_saved(root):
        rows, files = saved_rows(root, bare, only="test")[0], saved_files(root)
    else:
        files = sorted(file for file in root.iterdir() if file.suffix in READERS and file.stem == "test" and file.is_file())
        if len(files) != 1:
            raise DataInvalid(f"test folder {str(path)!r} has {len(files)} tables named test; {accepted}")
        rows = list(file_rows(files[0], "test", bare))
    known = set(data.classes)
    strange = next((row for row in rows if row.label not in known), None)
    if strange is not None:
        raise DataInvalid(f"{strange.where}: label {short(strange.label)} is none of the data set's classes: {several(data.classes)}")
    if len({row.label for row in rows}) < 2:
        raise DataInvalid(f"test set {str(path)!r} has texts of {'1 class' if rows else 'no class'}; two at least are needed")
    return TextTable(root, data.classes, _splits(rows, data.classes), tuple(files))


def _files(root: Path, columns: Columns) -> list[tuple[Path, str | None]]:
    """A folder's tables and the split of each; one alone, of all splits, where that is what there is."""
    tables = [file for file in sorted(root.iterdir()) if file.suffix in READERS and file.is_file()]
    named = sorted((file for file in tables if file.stem in SPLITS), key=lambda file: tuple(SPLITS).index(file.stem))
    found: list[tuple[Path, str | None]] = [(file, SPLITS[file.stem]) for file in named]
    whole: list[tuple[Path, str | None]] = [(file, None) for file in tables if file.stem == _WHOLE]
    splits = [split for _, split in found]
    for file, split in found:
        if splits.count(split) > 1:
            raise DataInvalid(f"data folder {str(root)!r} has {file.name} and another file for {split}; leave one of them")
    if len(whole) + bool(found) > 1:
        others = ", ".join(file.name for file, _ in (*whole, *found))
        raise DataInvalid(f"data folder {str(root)!r} has several data sets of texts: {others}; leave one of them")
    if not found and not whole:
        images = "; it has folders of images, which a transformers: backbone does not read" if (root / "train").is_dir() else ""
        raise DataInvalid(f"data folder {str(root)!r} has no train.csv or train.jsonl{images}; {columns.accepted()}")
    return found or whole


def _table(root: Path, rows: list[Row], columns: Columns, files: Sequence[Path], names: list[str] | None = None) -> TextTable:
    present = {row.split for row in rows}
    for split in ("train", "val"):
        if split not in present:
            raise DataInvalid(f"data {str(root)!r} has no texts of split {split!r}; {columns.accepted()}")
    known = {row.label for row in rows if row.split == "train"}
    if len(known) < 2:
        raise DataInvalid(f"data {str(root)!r} has one class only ({plain(min(known))}) in train; at least two are needed")
    classes = tuple(names or sorted(known, key=_by_number if all(name.isdecimal() for name in known) else None))
    allowed = set(classes)
    strange = next((row for row in rows if row.label not in allowed), None)
    if strange is not None:
        raise DataInvalid(f"{strange.where}: label {short(strange.label)} is none of the classes of train: {several(classes)}")
    return TextTable(root, classes, _splits(rows, classes), tuple(files))


def _by_number(name: str) -> Any:
    return int(name), name


def _splits(rows: Sequence[Row], classes: Sequence[str]) -> dict[str, tuple[TextExample, ...]]:
    numbers, present = {name: number for number, name in enumerate(classes)}, {row.split for row in rows}
    return {
        split: tuple(TextExample(row.text, numbers[row.label], row.place) for row in rows if row.split == split)
        for split in ("train", "val", "test")
        if split in present
    }
