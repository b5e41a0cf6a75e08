"""Further test sets over the classes of a data set, for domain shift: as ImageNet-V2, -Sketch, -A and -R are used.

A folder with one folder of images per class; the classes may be fewer than the data set's, and scoring is then among
those alone. `tables.read_test_table` reads such a set of texts. Without torch.
"""

import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Any, TypeVar

from glora_core.data.folders import class_folders, hash_images
from glora_core.data.labelled import AnyData, Example, ImageFolder, in_both, several
from glora_core.data.saved import is_saved
from glora_core.data.saved_images import read_saved_images
from glora_core.errors import DataInvalid

DataT = TypeVar("DataT", bound=AnyData)


def scan_test(root: str | os.PathLike[str], data: ImageFolder) -> ImageFolder:
    """Read, check and hash a further test set; its only split is `test`, and its classes are those of `data`.

    Raises:
        DataInvalid: no such folder, no class folders with images, one class only, a class that `data` lacks, or an image
            that cannot be decoded.
        LibraryMissing: the folder was saved by `datasets`, which is not installed.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataInvalid(f"test folder {str(root)!r} does not exist or is not a folder")
    if is_saved(folder):
        saved = read_saved_images(folder, data.classes)
        if len(present(saved)) < 2:
            raise DataInvalid(f"test folder {str(root)!r} has images of {len(present(saved))} classes; two at least are needed")
        return saved
    found, notes = class_folders(folder)
    strange = [name for name in found if name not in data.classes]
    if strange:
        raise DataInvalid(
            f"test folder {str(root)!r} has classes that the data set lacks: {several(strange)}; its classes are {several(data.classes)}"
        )
    if len(found) < 2:
        there = "1 class" if found else "no class"
        raise DataInvalid(f"test folder {str(root)!r} has images of {there}; accepted is one folder of images per class, two at least")
    labels = {name: label for label, name in enumerate(data.classes)}
    examples = tuple(Example(path.relative_to(folder).as_posix(), labels[name]) for name, paths in found.items() for path in paths)
    return ImageFolder(folder, data.classes, {"test": examples}, hash_images(folder, (e.path for e in examples)), notes=notes)


def present(test: AnyData) -> tuple[int, ...]:
    """Labels of the classes that a further test set has examples of, ascending: those among which it is scored."""
    return tuple(sorted({example.label for example in test.splits["test"]}))


def halves(test: DataT) -> tuple[DataT, DataT]:
    """A further test set in two: the examples to select by, and those to report on, by which nothing was selected.

    Of every class every other example goes to the first, in the order of a hash of its contents, so that the parts depend on nothing else;
    examples that are the same stay together.

    Raises:
        DataInvalid: one of the parts has fewer than two classes.
    """
    ranks = defaultdict[int, set[str]](set)
    for example in test.splits["test"]:
        ranks[example.label].add(_hash(test.contents(example)))
    selection = {digest for own in ranks.values() for digest in sorted(own)[1::2]}
    parts = [
        test.with_split("test", tuple(e for e in test.splits["test"] if (_hash(test.contents(e)) in selection) == wanted))
        for wanted in (True, False)
    ]
    if any(len(present(part)) < 2 for part in parts):
        raise DataInvalid(
            f"test set {str(test.root)!r} cannot be split in two, one to select by and one to report on; accepted are two classes with two "
            f"{test.kind}s each that differ, or more"
        )
    return parts[0], parts[1]


def _hash(contents: str) -> str:
    return hashlib.sha256(contents.encode()).hexdigest()


def _parts(test: AnyData) -> dict[str, Any] | None:
    """The two parts that a search may select by and report on; None where the set is too small."""
    try:
        found = dict(zip(("selection", "report"), halves(test), strict=True))
    except DataInvalid:
        return None
    return {name: {"fingerprint": part.fingerprint, f"{test.kind}s": len(part.splits["test"])} for name, part in found.items()}


def facts_of_test(name: str, test: AnyData, data: AnyData) -> dict[str, Any]:
    """A further test set for a job or a manifest, as plain JSON values; warnings tell its notes, and examples that train or val has too."""
    warnings = list(test.told)
    for split in ("train", "val"):
        known = {data.contents(example) for example in data.splits[split]}
        shared = [test.place(example) for example in test.splits["test"] if test.contents(example) in known]
        if shared:
            warnings.append(f"{in_both(len(shared), name, split, data.kind)}, such as {shared[0]!r}")
    return {
        "path": str(test.root),
        "fingerprint": test.fingerprint,
        f"{data.kind}s": len(test.splits["test"]),
        "classes": len(present(test)),
        "parts": _parts(test),
        "warnings": warnings,
    }
