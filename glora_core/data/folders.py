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

from glora_core.data.decoding import check, extensions
from glora_core.data.labelled import Example, ImageFolder, Splits, several
from glora_core.data.labels import check_name
from glora_core.data.lists import LISTS, UNION, read_lists
from glora_core.data.saved import is_saved
from glora_core.data.saved_images import read_saved_images
from glora_core.data.vtab import hint
from glora_core.errors import DataInvalid

ACCEPTED = "accepted are train/, val/ and optionally test/ with one folder of images per class, or VTAB-1K lists " + ", ".join(
    LISTS.values()
)
LARGEST_IMAGE = 256 * 2**20
"""Bytes of an image file at most: as many as the largest image that is read has in memory (`decoding.MAX_PIXELS`)."""


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
    notes: tuple[str, ...] = ()
    if (folder / LISTS["train"]).is_file():
        classes, splits, union = read_lists(folder)
    elif (folder / "train").is_dir():
        classes, splits, notes = _read_class_folders(folder)
    else:
        raise DataInvalid(
            f"data folder {str(root)!r} has neither train/ nor {LISTS['train']}{_table_hint(folder)}; {ACCEPTED}{hint(folder)}"
        )
    _check_splits(folder, classes, splits)
    hashes = hash_images(folder, (e.path for examples in (*splits.values(), union) for e in examples))
    return ImageFolder(folder, classes, splits, hashes, union, (*notes, *_notes(splits, union, hashes)))


def hash_images(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    """sha256 (hex) of each file's bytes by path relative to the folder; each is read and checked once.

    Raises:
        DataInvalid: a file is no image that can be decoded.
    """
    wanted = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        return dict(zip(wanted, pool.map(lambda path: _checked_hash(folder / path), wanted), strict=True))


def class_folders(folder: Path) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """The image files below each class folder that has some, sorted, and a note on the files that are none; hidden ones are passed over."""
    found: dict[str, list[Path]] = {}
    others = Counter[str]()
    for entry in sorted(e for e in folder.iterdir() if e.is_dir() and not e.name.startswith(".")):
        check_name(f"a class folder of {str(folder)!r}", entry.name)
        files = [path for path in sorted(entry.rglob("*")) if path.is_file() and not _hidden(path.relative_to(entry))]
        images = [path for path in files if path.suffix.lower() in extensions()]
        found |= {entry.name: images} if images else {}
        others.update(path.suffix.lower() or "without one" for path in files if path.suffix.lower() not in extensions())
    kinds = several([f"{count:,} {end}" for end, count in others.most_common()])
    told = f"{others.total():,} file{'s' if others.total() > 1 else ''} of {folder.name} passed over, by the ends of their names: {kinds}"
    return found, (told,) if others else ()


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_class_folders(folder: Path) -> tuple[tuple[str, ...], Splits, tuple[str, ...]]:
    found = {split: class_folders(folder / split) for split in LISTS if (folder / split).is_dir()}
    classes, splits = tuple(found["train"][0]), dict[str, tuple[Example, ...]]()
    labels = {name: label for label, name in enumerate(classes)}
    for split, (images, _) in found.items():
        strange = next((str(folder / split / name) for name in images if name not in labels), None)
        if strange is not None:
            raise DataInvalid(f"class folder {strange!r} has no counterpart with images in train/; its classes are {several(classes)}")
        splits[split] = tuple(
            Example(path.relative_to(folder).as_posix(), labels[name]) for name, paths in images.items() for path in paths
        )
    return classes, splits, tuple(note for _, notes in found.values() for note in notes)


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
    size = path.stat().st_size
    if size > LARGEST_IMAGE:
        raise DataInvalid(f"image {str(path)!r} has {size:,} bytes; accepted are files of up to {LARGEST_IMAGE:,}")
    check(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
