"""Labelled texts from tables: CSV with a header, JSON lines, or a folder that Hugging Face `datasets` saved; without torch.

A table has columns `text` and `label`, and either a column `split` (`train`, `val` or `validation`, `test`) or a file for
each split in one folder. Every refusal names the file and the line.
"""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from glora_core.data.labelled import in_both, lacking
from glora_core.errors import DataInvalid, LibraryMissing

SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
ACCEPTED = (
    "accepted are a .csv or .jsonl file with columns text, label and split, or a folder of train, val and optionally test as such files"
)


@dataclass(frozen=True, slots=True)
class TextExample:
    """One labelled text; the label indexes the classes."""

    text: str
    label: int


@dataclass(frozen=True)
class TextTable:
    """A checked data set of texts.

    Attributes:
        root: the file or folder.
        classes: class names, sorted, as numbers where all are; in their own order where `datasets` has stored one.
        splits: examples of `train`, `val` and, if there is one, `test`.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[TextExample, ...]]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over class names and every split, text and label."""
        rows = ([split, e.text, e.label] for split, examples in sorted(self.splits.items()) for e in examples)
        total = hashlib.sha256(json.dumps(self.classes).encode())
        for row in rows:
            total.update(f"\n{json.dumps(row)}".encode())
        return total.hexdigest()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Texts of val or test that train has too, and classes that a split has no texts of, a sentence each."""
        known = {example.text for example in self.splits["train"]}
        told = []
        for split, examples in self.splits.items():
            seen = {example.label for example in examples}
            counts = [int(label in seen) for label in range(len(self.classes))]
            shared = sum(example.text in known for example in examples) if split != "train" else 0
            told += [in_both(shared, split, "train", "text")] if shared else []
            told += [f"{split} has no texts of {lacking(self.classes, counts)}"] if 0 in counts else []
        return tuple(told)


@dataclass(frozen=True, slots=True)
class _Row:
    where: str
    split: str
    text: str
    label: str


def read_table(path: str | os.PathLike[str]) -> TextTable:
    """Read and check labelled texts.

    Raises:
        DataInvalid: no such file or folder, an unknown layout, a column that is missing, a row without text or label, a
            missing split, fewer than two classes, or a class that `train` lacks.
        LibraryMissing: the folder is one of `datasets`, which is not installed.
    """
    root = Path(path)
    if root.is_file():
        return _table(root, list(_file_rows(root, None)))
    if not root.is_dir():
        raise DataInvalid(f"data {str(path)!r} does not exist; {ACCEPTED}")
    if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
        rows, names = _saved_rows(root)
        return _table(root, rows, names)
    found = [file for file in sorted(root.iterdir()) if file.suffix in _READERS and file.stem in SPLITS]
    splits = [SPLITS[file.stem] for file in found]
    for file, split in zip(found, splits, strict=True):
        if splits.count(split) > 1:
            raise DataInvalid(f"data folder {str(root)!r} has {file.name} and another file for {split}; leave one of them")
    if not found:
        raise DataInvalid(f"data folder {str(root)!r} has no train.csv or train.jsonl; {ACCEPTED}")
    return _table(root, [row for file, split in zip(found, splits, strict=True) for row in _file_rows(file, split)])


def _table(root: Path, rows: list[_Row], names: list[str] | None = None) -> TextTable:
    present = {row.split for row in rows}
    for split in ("train", "val"):
        if split not in present:
            raise DataInvalid(f"data {str(root)!r} has no texts of split {split!r}; {ACCEPTED}")
    known = {row.label for row in rows if row.split == "train"}
    if len(known) < 2:
        raise DataInvalid(f"data {str(root)!r} has one class only ({min(known)}) in train; at least two are needed")
    classes = names or sorted(known, key=(lambda name: int(name)) if all(name.isdecimal() for name in known) else None)
    for row in rows:
        if row.label not in (names or known):
            raise DataInvalid(f"{row.where}: label {row.label!r} is none of the classes of train: {', '.join(classes)}")
    numbers = {name: number for number, name in enumerate(classes)}
    splits: dict[str, tuple[TextExample, ...]] = {
        split: tuple(TextExample(row.text, numbers[row.label]) for row in rows if row.split == split)
        for split in ("train", "val", "test")
        if split in present
    }
    return TextTable(root, tuple(classes), splits)


def _file_rows(file: Path, split: str | None) -> Iterator[_Row]:
    """The rows of one file; `split` is the file's own, None where a column tells it."""
    if file.suffix not in _READERS:
        raise DataInvalid(f"data file {str(file)!r} ends in {file.suffix!r}; {ACCEPTED}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            for number, record in _READERS[file.suffix](file, stream):
                yield _row(f"{str(file)!r} line {number}", record, split)
    except UnicodeDecodeError as error:
        raise DataInvalid(f"{str(file)!r} is not UTF-8 text: {error}") from error


def _row(where: str, record: dict[str, Any], split: str | None) -> _Row:
    for column in ("text", "label") if split else ("text", "label", "split"):
        if column not in record:
            raise DataInvalid(f"{where}: column {column!r} is missing; it has {', '.join(map(str, record))}; {ACCEPTED}")
    text, label, written = record["text"], record["label"], record.get("split", split)
    if not isinstance(text, str) or not text.strip():
        raise DataInvalid(f"{where}: text is {text!r}; accepted is any text that is not blank")
    if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
        raise DataInvalid(f"{where}: label is {label!r}; accepted is a name or a whole number")
    if not isinstance(written, str) or written not in SPLITS:
        raise DataInvalid(f"{where}: split is {written!r}; accepted are {', '.join(SPLITS)}")
    if split not in (None, SPLITS[written]):
        raise DataInvalid(f"{where}: split is {written!r} in what is {split} by its name; leave the column out")
    return _Row(where, SPLITS[written], text, str(label).strip())


def _csv_records(file: Path, stream: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(stream, strict=True)
    try:
        header = next(reader, [])
        for values in reader:
            if values and len(values) != len(header):
                raise DataInvalid(f"{str(file)!r} line {reader.line_num}: {len(values)} values; the header has {len(header)} columns")
            if values:
                yield reader.line_num, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise DataInvalid(f"{str(file)!r} line {reader.line_num}: {error}") from error


def _json_records(file: Path, stream: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataInvalid(f"{str(file)!r} line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise DataInvalid(f"{str(file)!r} line {number}: accepted is a JSON object with text and label")
        yield number, record


_READERS: dict[str, Callable[[Path, TextIO], Iterator[tuple[int, dict[str, Any]]]]] = {".csv": _csv_records, ".jsonl": _json_records}


def _saved_rows(root: Path) -> tuple[list[_Row], list[str] | None]:
    """Rows of what `datasets` saved, and the class names where its labels are numbers of named classes."""
    try:
        import datasets
    except ImportError as error:
        raise LibraryMissing(f"{str(root)!r} was saved by the library datasets, which is not installed; pip install datasets") from error
    try:
        saved = datasets.load_from_disk(str(root))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataInvalid(f"data folder {str(root)!r} cannot be read by datasets: {error}") from error
    parts = {None: saved} if isinstance(saved, datasets.Dataset) else dict(saved)
    rows, names = [], None
    for part, table in parts.items():
        if part is not None and part not in SPLITS:
            raise DataInvalid(f"data folder {str(root)!r} has a split {part!r}; accepted are {', '.join(SPLITS)}")
        names = getattr(table.features.get("label"), "names", None)
        for number, record in enumerate(table):
            where = f"{str(root)!r} {part or ''} row {number}"
            label = record.get("label")
            if names and (label is None or not 0 <= label < len(names)):
                raise DataInvalid(f"{where}: label is {label}; accepted is 0 to {len(names) - 1}")
            rows.append(_row(where, record | ({"label": names[label]} if names else {}), part and SPLITS[part]))
    return rows, names
