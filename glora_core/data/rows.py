"""The rows of a CSV file with a header, or of a file of JSON lines: a text, a label and perhaps a split each, checked one by one.

Every refusal names the file and the line, and what would be accepted. Reads line by line with a bound, so that a file that is no
table costs no more memory than a line. Without torch.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from glora_core.data.labels import CONTROL, SURROGATE, plain, short
from glora_core.errors import DataInvalid

SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
LONGEST = 131_072
"""Characters of a field at most: the csv module's own bound, and hundreds of times what a backbone reads."""
LONGEST_LABEL = 200
_LONGEST_LINE = 4 * LONGEST
_MOST_COLUMNS = 10_000
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""What bytes that are not UTF-8 are read as, each by itself."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table by what they hold; `split` is empty where no column tells it."""

    text: str = "text"
    label: str = "label"
    split: str = "split"

    def accepted(self) -> str:
        """What would be accepted as a data set of texts, for refusals."""
        return (
            f"accepted are a .csv or .jsonl file with columns {self.text}, {self.label} and {self.split}, or a folder of train, val and "
            "optionally test as such files, or of one such file named data"
        )


@dataclass(frozen=True, slots=True)
class Row:
    """A checked row; `where` is its file and line for refusals, `place` the same in short."""

    where: str
    place: str
    split: str
    text: str
    label: str


def file_rows(file: Path, split: str | None, columns: Columns) -> Iterator[Row]:
    """The rows of one file.

    Args:
        split: the file's own; None where a column tells it.

    Raises:
        DataInvalid: the file is none of these, or a row cannot be used.
    """
    if file.suffix not in READERS:
        raise DataInvalid(f"data file {str(file)!r} ends in {file.suffix!r}; {columns.accepted()}")
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        for number, record in READERS[file.suffix](file, stream):
            yield checked_row(f"{str(file)!r} line {number}", f"{file.name} line {number}", record, split, columns)


def checked_row(where: str, place: str, record: Mapping[str, Any], split: str | None, columns: Columns) -> Row:
    """A row of a record by the names of its columns. Raises DataInvalid if a column is missing or holds what cannot be used."""
    for column in (columns.text, columns.label) if split else (columns.text, columns.label, columns.split):
        if column not in record:
            there = plain(", ".join(str(name) for name in list(record)[:20]))
            raise DataInvalid(f"{where}: column {column!r} is missing; it has {there}; {columns.accepted()}")
    told = SPLITS.get(str(record[columns.split])) if columns.split and columns.split in record else split
    if told is None:
        raise DataInvalid(f"{where}: {columns.split} is {short(record[columns.split])}; accepted are {', '.join(SPLITS)}")
    if split not in (None, told):
        raise DataInvalid(
            f"{where}: {columns.split} is {short(record[columns.split])} in what is {split} by its name; leave the column out"
        )
    return Row(where, place, told, _text(where, columns.text, record[columns.text]), _label(where, columns.label, record[columns.label]))


def _text(where: str, column: str, text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise DataInvalid(f"{where}: {column} is {short(text)}; accepted is any text that is not blank")
    if len(text) > LONGEST:
        raise DataInvalid(f"{where}: {column} has {len(text):,} characters; accepted are at most {LONGEST:,}")
    if SURROGATE.search(text):
        raise DataInvalid(f"{where}: {column} has half of a surrogate pair, which is no character; accepted is any Unicode text")
    return text


def _label(where: str, column: str, label: Any) -> str:
    if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
        raise DataInvalid(f"{where}: {column} is {short(label)}; accepted is a name or a whole number")
    name = str(label).strip()
    if len(name) > LONGEST_LABEL or CONTROL.search(name) or SURROGATE.search(name):
        accepted = f"a name of up to {LONGEST_LABEL} characters on one line"
        raise DataInvalid(f"{where}: {column} is {short(name)}; accepted is {accepted}; is this the column of labels?")
    return name


def _lines(file: Path, stream: TextIO) -> Iterator[str]:
    number = 0
    while line := stream.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise DataInvalid(f"{str(file)!r} line {number} has {_LONGEST_LINE:,} characters or more; accepted are fewer")
        strange = _NOT_UTF8.search(line)
        if strange:
            byte, place = ord(strange[0]) - 0xDC00, strange.start() + 1
            raise DataInvalid(f"{str(file)!r} line {number} is not UTF-8 text: byte 0x{byte:02x} at character {place}; accepted is UTF-8")
        yield line


def _csv_records(file: Path, stream: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(_lines(file, stream), strict=True)
    try:
        header = next(reader, [])
        if len(header) > _MOST_COLUMNS:
            raise DataInvalid(f"{str(file)!r} line 1: {len(header):,} columns; accepted are at most {_MOST_COLUMNS:,}")
        twice = next((name for name, count in Counter(header).items() if count > 1), None)
        if twice is not None:
            raise DataInvalid(f"{str(file)!r} line 1: column {short(twice)} is there twice; accepted are names that differ")
        for values in reader:
            if values and len(values) != len(header):
                raise DataInvalid(f"{str(file)!r} line {reader.line_num}: {len(values)} values; the header has {len(header)} columns")
            if values:
                yield reader.line_num, dict(zip(header, values, strict=True))
    except csv.Error as error:
        told = f"a field of more than {LONGEST:,} characters, or a quote that is not closed" if "limit" in str(error) else str(error)
        raise DataInvalid(
            f"{str(file)!r} line {reader.line_num}: {told}; accepted is CSV with quotes around text of several lines"
        ) from error


def _json_records(file: Path, stream: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_lines(file, stream), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataInvalid(f"{str(file)!r} line {number} is not JSON: {error}; accepted is one JSON object a line") from error
        if not isinstance(record, dict):
            raise DataInvalid(f"{str(file)!r} line {number}: accepted is a JSON object with text and label")
        yield number, record


READERS: dict[str, Callable[[Path, TextIO], Iterator[tuple[int, dict[str, Any]]]]] = {".csv": _csv_records, ".jsonl": _json_records}
"""Readers of a file's records, with the number of the line that each ends in, by the end of the file's name."""
