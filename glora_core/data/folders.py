"""A folder of images as a labelled data set with fixed splits: found, checked and hashed, without torch.

Two layouts are read: `train/ val/ [test/]` with one folder per class, and the lists of VTAB-1K (`train800.txt`,
`val200.txt`, `test.txt`; see `lists`); also what `datasets` saved (`saved_images`). Every refusal names the file or folder.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from glora_core.data.decoding import check
from glora_core.data.labelled import Example, ImageFolder, Splits
from glora_core.data.lists import LISTS, UNION, read_lists
from glora_core.data.saved import is_saved
from glora_core.data.saved_images import read_saved_images
from glora_core.data.vtab import hint
from glora_core.errors import DataInvalid

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
ACCEPTED = "accepted are train/, val/ and optionally test/ with one folder of images per class, or VTAB-1K lists " + ", ".join(
    LISTS.values()
)


def scan(root: str | os.PathLike[str]) -> ImageFolder:
    """Read, check and hash a data folder; every image is read once to its end.

    Raises:
        DataInvalid: no such folder, an unknown layout, an empty split, fewer than two classes, a class of `val` or
            `test` that `train` lacks, or an image that cannot be decoded.
        LibraryMissing: the folder was saved by `datasets`, which is not installed.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataInvalid(f"data folder {str(root)!r} does not exist or is not a folder{_table_hint(folder) or hint(folder)}")
    if is_saved(folder):
        saved = read_saved_images(folder)
        _check_splits(folder, saved.classes, saved.splits)
        return saved
    union: tuple[Example, ...] = ()
    if (folder / LISTS["train"]).is_file():
        classes, splits, union = read_lists(folder)
    elif (folder / "train").is_dir():
        classes, splits = _read_class_folders(folder)
    else:
        raise DataInvalid(
            f"data folder {str(root)!r} has neither train/ nor {LISTS['train']}{_table_hint(folder)}; {ACCEPTED}{hint(folder)}"
        )
    _check_splits(folder, classes, splits)
    hashes = hash_images(folder, (e.path for examples in (*splits.values(), union) for e in examples))
    return ImageFolder(folder, classes, splits, hashes, union, _notes(splits, union, hashes))


def hash_images(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    """sha256 (hex) of each file's bytes by path relative to the folder; each is read and checked once.

    Raises:
        DataInvalid: a file is no image that can be decoded.
    """
    wanted = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        return dict(zip(wanted, pool.map(lambda path: _checked_hash(folder / path), wanted), strict=True))


def images_below(folder: Path) -> list[Path]:
    """The image files below a folder by their extensions, sorted; hidden ones are passed over."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file() and not p.name.startswith("."))


def _read_class_folders(folder: Path) -> tuple[tuple[str, ...], Splits]:
    classes = tuple(sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir() and images_below(entry)))
    splits: Splits = {}
    for split in LISTS:
        if not (folder / split).is_dir():
            continue
        examples: list[Example] = []
        for entry in sorted(e for e in (folder / split).iterdir() if e.is_dir()):
            paths = images_below(entry)
            if paths and entry.name not in classes:
                raise DataInvalid(
                    f"class folder {str(entry)!r} has no counterpart with images in train/; its classes are {', '.join(classes)}"
                )
            examples += (Example(path.relative_to(folder).as_posix(), classes.index(entry.name)) for path in paths)
        splits[split] = tuple(examples)
    return classes, splits


def _check_splits(folder: Path, classes: tuple[str, ...], splits: Splits) -> None:
    for split in ("train", "val"):
        if not splits.get(split):
            raise DataInvalid(f"data folder {str(folder)!r}: split {split!r} is missing or has no images; {ACCEPTED}")
    if "test" in splits and not splits["test"]:
        raise DataInvalid(f"data folder {str(folder)!r}: split 'test' has no images; leave it out or fill it")
    seen = {example.label for example in splits["train"]}
    if len(seen) < 2:
        only = ", ".join(classes[label] for label in seen)
        raise DataInvalid(f"data folder {str(folder)!r} has one class only ({only}); at least two are needed")


def _notes(splits: Splits, union: tuple[Example, ...], hashes: Mapping[str, str]) -> tuple[str, ...]:
    """Whether the list of train and val together holds other images or labels than theirs, under whichever paths."""
    both, listed = (Counter((hashes[e.path], e.label) for e in examples) for examples in (splits["train"] + splits["val"], union))
    differing = ((both - listed) + (listed - both)).total()
    if not union or not differing:
        return ()
    return (f"{UNION} is not {LISTS['train']} and {LISTS['val']} together: they differ in {differing:,} images or labels",)


def _table_hint(path: Path) -> str:
    """That a path holds texts, which other backbones read; empty where it does not look so."""
    tables = [file for file in ([path] if path.is_file() else path.glob("*.*")) if file.suffix in (".csv", ".jsonl")]
    return f"; {sorted(tables)[0].name} is a table of texts, which a backbone named transformers:FOLDER reads" if tables else ""


def _checked_hash(path: Path) -> str:
    check(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
