"""A folder of images as a labelled data set with fixed splits: found, checked and fingerprinted, without torch.

Two layouts are read: `train/ val/ [test/]` with one folder per class, and the lists of VTAB-1K (`train800.txt`,
`val200.txt`, `test.txt`: a relative path and an integer label per line). Every refusal names the file or folder.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from glora_core.data.decoding import check
from glora_core.errors import DataInvalid

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
_LABEL = re.compile(r"[0-9]{1,5}")
ACCEPTED = "accepted are train/, val/ and optionally test/ with one folder of images per class, or VTAB-1K lists " + ", ".join(
    LISTS.values()
)


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled image: its path relative to the data folder, and its class index."""

    path: str
    label: int


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """A checked data set.

    Attributes:
        root: the folder.
        classes: class names; an example's label indexes them.
        splits: examples of `train`, `val` and, if there is one, `test`.
        fingerprint: sha256 (hex) over every split, path, label and image's bytes.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[Example, ...]]
    fingerprint: str


def scan(root: str | os.PathLike[str]) -> ImageFolder:
    """Read, check and fingerprint a data folder; every image is decoded once.

    Raises:
        DataInvalid: no such folder, an unknown layout, an empty split, fewer than two classes, a class of `val` or
            `test` that `train` lacks, or an image that cannot be decoded.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataInvalid(f"data folder {str(root)!r} does not exist or is not a folder")
    if (folder / LISTS["train"]).is_file():
        classes, splits = _read_lists(folder)
    elif (folder / "train").is_dir():
        classes, splits = _read_class_folders(folder)
    else:
        raise DataInvalid(f"data folder {str(root)!r} has neither train/ nor {LISTS['train']}; {ACCEPTED}")
    _check_splits(folder, classes, splits)
    return ImageFolder(folder, classes, splits, _fingerprint(folder, classes, splits))


def _read_class_folders(folder: Path) -> tuple[tuple[str, ...], dict[str, tuple[Example, ...]]]:
    classes = tuple(sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir() and any(_images(entry))))
    splits: dict[str, tuple[Example, ...]] = {}
    for split in LISTS:
        if not (folder / split).is_dir():
            continue
        examples: list[Example] = []
        for entry in sorted(e for e in (folder / split).iterdir() if e.is_dir()):
            paths = list(_images(entry))
            if paths and entry.name not in classes:
                raise DataInvalid(
                    f"class folder {str(entry)!r} has no counterpart with images in train/; its classes are {', '.join(classes)}"
                )
            examples += (Example(path.relative_to(folder).as_posix(), classes.index(entry.name)) for path in paths)
        splits[split] = tuple(examples)
    return classes, splits


def _read_lists(folder: Path) -> tuple[tuple[str, ...], dict[str, tuple[Example, ...]]]:
    splits = {split: tuple(_read_list(folder, name)) for split, name in LISTS.items() if (folder / name).is_file()}
    labels = {example.label for example in splits["train"]}
    count = max((example.label for examples in splits.values() for example in examples), default=-1) + 1
    for split, examples in splits.items():
        strange = sorted({example.label for example in examples} - labels)
        if strange:
            raise DataInvalid(f"{LISTS[split]} has labels {strange} that {LISTS['train']} lacks")
    return tuple(str(label) for label in range(count)), splits


def _read_list(folder: Path, name: str) -> Iterator[Example]:
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
                f"{name} line {number}: {line.strip()!r} is not a path and a class index from 0 to 99999, separated by a space"
            )
        if not _is_file_inside(folder, path):
            raise DataInvalid(f"{name} line {number}: image {path!r} does not exist inside the data folder")
        yield Example(path, int(label))


def _is_file_inside(folder: Path, path: str) -> bool:
    """Whether a relative path names a file that lies in the folder, links followed."""
    try:
        found = (folder / path).resolve(strict=True)
    except (OSError, ValueError):
        return False
    return not Path(path).is_absolute() and found.is_relative_to(folder.resolve()) and found.is_file()


def _check_splits(folder: Path, classes: tuple[str, ...], splits: dict[str, tuple[Example, ...]]) -> None:
    for split in ("train", "val"):
        if not splits.get(split):
            raise DataInvalid(f"data folder {str(folder)!r}: split {split!r} is missing or has no images; {ACCEPTED}")
    if "test" in splits and not splits["test"]:
        raise DataInvalid(f"data folder {str(folder)!r}: split 'test' has no images; leave it out or fill it")
    seen = {example.label for example in splits["train"]}
    if len(seen) < 2:
        only = ", ".join(classes[label] for label in seen)
        raise DataInvalid(f"data folder {str(folder)!r} has one class only ({only}); at least two are needed")


def _images(folder: Path) -> Iterable[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file() and not p.name.startswith("."))


def _fingerprint(folder: Path, classes: tuple[str, ...], splits: dict[str, tuple[Example, ...]]) -> str:
    rows = [(split, example) for split, examples in sorted(splits.items()) for example in examples]
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        hashes = list(pool.map(lambda row: _checked_hash(folder / row[1].path), rows))
    total = hashlib.sha256("\n".join(classes).encode())
    for (split, example), digest in zip(rows, hashes, strict=True):
        total.update(f"\n{split}\t{example.path}\t{example.label}\t{digest}".encode())
    return total.hexdigest()


def _checked_hash(path: Path) -> str:
    check(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
