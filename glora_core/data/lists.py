"""Data sets given by list files, as VTAB-1K's are: a relative path and an integer label per line.

A folder that is named as one of VTAB-1K's 19 tasks has that task's classes, also those that its lists show no image of.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from glora_core.data.labelled import Example, Splits, several
from glora_core.data.labels import short
from glora_core.data.vtab import TASKS, TRAIN, Task
from glora_core.errors import DataInvalid

LISTS = {"train": TRAIN, "val": "val200.txt", "test": "test.txt"}
UNION = "train800val200.txt"
LARGEST_LIST = 64 * 2**20
"""Bytes of a list at most, which is read whole: ten times what the longest of VTAB-1K's has."""
_LABEL = re.compile(r"[0-9]{1,5}")


def read_lists(folder: Path) -> tuple[tuple[str, ...], Splits, tuple[Example, ...]]:
    """Class names, splits, and the examples of `train800val200.txt` where it is there; labels are class names.

    Raises:
        DataInvalid: a line is no path and label, names an image that is not there, or has a label that the task lacks or,
            in a folder that is no known task's, that `train800.txt` lacks.
    """
    files = LISTS | {"train+val": UNION}
    found = {split: tuple(_read_list(folder, name)) for split, name in files.items() if (folder / name).is_file()}
    task = TASKS.get(folder.resolve().name)
    for split, examples in found.items():
        _check_labels(files[split], {e.label for e in examples}, {e.label for e in found["train"]}, task)
    union = found.pop("train+val", ())
    count = task.classes if task else max((e.label for examples in found.values() for e in examples), default=-1) + 1
    return tuple(str(label) for label in range(count)), found, union


def _check_labels(name: str, labels: set[int], known: set[int], task: Task | None) -> None:
    if task is None:
        strange = sorted(labels - known)
        if strange:
            raise DataInvalid(f"{name} has labels [{several([str(label) for label in strange])}] that {TRAIN} lacks")
    elif max(labels, default=0) >= task.classes:
        raise DataInvalid(f"{name} has label {max(labels)}; VTAB-1K's {task.name} has {task.classes} classes, from 0 to {task.classes - 1}")


def _read_list(folder: Path, name: str) -> Iterator[Example]:
    size = (folder / name).stat().st_size
    if size > LARGEST_LIST:
        raise DataInvalid(f"{name} has {size:,} bytes; accepted are lists of up to {LARGEST_LIST:,}")
    try:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataInvalid(f"{name} is not UTF-8 text: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        if not path or not _LABEL.fullmatch(label):
            raise DataInvalid(
                f"{name} line {number}: {short(line.strip())} is not a path and a class index from 0 to 99999, separated by a space"
            )
        if not _is_file_inside(folder, path):
            raise DataInvalid(f"{name} line {number}: image {short(path)} does not exist inside the data folder")
        yield Example(path, int(label))


def _is_file_inside(folder: Path, path: str) -> bool:
    """Whether a relative path names a file that lies in the folder, links followed."""
    try:
        found = (folder / path).resolve(strict=True)
    except (OSError, ValueError):
        return False
    return not Path(path).is_absolute() and found.is_relative_to(folder.resolve()) and found.is_file()
