"""Labelled images from a folder that Hugging Face `datasets` saved: one table for each split, images as bytes inside it; without torch.

The column of images is known by its type, that of labels by its name `label` or as the only one of named classes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glora_core.data.decoding import Encoded, check
from glora_core.data.labelled import Example, ImageFolder, Splits, several
from glora_core.data.labels import check_name, short
from glora_core.data.rows import SPLITS
from glora_core.data.saved import chosen_tables, class_name, class_names, saved_files, values_of
from glora_core.errors import DataInvalid


@dataclass(frozen=True)
class SavedImages(ImageFolder):
    """A checked data set of images in tables; an example's `path` is its split and row, `columns` have the images' bytes, by split."""

    columns: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the folder."""
        return tuple(saved_files(self.root))

    def source(self, example: Example) -> Encoded:
        """The image's bytes, under a name that tells folder, split and row."""
        part, _, row = example.path.rpartition("/")
        return _encoded(self.root, part, self.columns[part], int(row))


def read_saved_images(root: Path, classes: tuple[str, ...] | None = None) -> SavedImages:
    """Read, check and hash a saved folder of labelled images; every image is read once to its end.

    Args:
        classes: of a further test set, those of its data set: labels are then theirs, and `test` is the only split.

    Raises:
        LibraryMissing: `datasets` is not installed.
        DataInvalid: it cannot read the folder, a table has no images or no labels, or more than one column of them, a label is none of the
            classes, or an image cannot be decoded.
    """
    parts = chosen_tables(root, None if classes is None else "test")
    if None in parts:
        raise DataInvalid(f"data folder {str(root)!r} has one table without a split; accepted is one for each of {', '.join(SPLITS)}")
    label = _label_column(root, parts)
    names = class_names(root, parts, label)
    labels = {
        str(part): _labels(root, str(part), [row[label] for row in values_of(table, [label])], names) for part, table in parts.items()
    }
    classes = classes or tuple(
        names or sorted({name for part, own in labels.items() if SPLITS[part] == "train" for name in own}, key=_order)
    )
    columns = {str(part): _image_column(root, str(part), table) for part, table in parts.items()}
    numbers = {name: number for number, name in enumerate(classes)}
    splits: dict[str, tuple[Example, ...]] = {}
    for part, own in labels.items():
        strange = next((row for row, name in enumerate(own) if name not in numbers), None)
        if strange is not None:
            raise DataInvalid(f"{str(root)!r} {part} row {strange}: label {short(own[strange])} is none of the classes {several(classes)}")
        splits[SPLITS[part]] = tuple(Example(f"{part}/{row}", numbers[name]) for row, name in enumerate(own))
    hashes = {f"{part}/{row}": _checked_hash(root, part, columns[part], row) for part, own in labels.items() for row in range(len(own))}
    ordered: Splits = {split: splits[split] for split in ("train", "val", "test") if split in splits}
    return SavedImages(root, classes, ordered, hashes, columns=columns)


def _label_column(root: Path, parts: Mapping[str | None, Any]) -> str:
    """The column of labels, the same in all tables."""
    features = next(iter(parts.values())).features
    named: list[str] = [name for name, kind in features.items() if getattr(kind, "names", None)]
    if "label" in features:
        return "label"
    if len(named) != 1:
        told = f"{len(named)} columns of named classes ({several(named)})" if named else "no column of named classes"
        raise DataInvalid(
            f"data folder {str(root)!r} has no column 'label' and {told}; accepted is a column label, or one of named classes"
        )
    return named[0]


def _labels(root: Path, part: str, values: Any, names: list[str] | None) -> list[str]:
    found = []
    for row, value in enumerate(values):
        name = class_name(f"{str(root)!r} {part} row {row}", value, names)
        if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
            raise DataInvalid(f"{str(root)!r} {part} row {row}: label is {short(name)}; accepted is a name or a whole number")
        check_name(f"the class of {str(root)!r} {part} row {row}", str(name).strip())
        found.append(str(name).strip())
    return found


def _order(name: str) -> tuple[bool, int, str]:
    """Numbers as numbers, before names."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def _image_column(root: Path, part: str, table: Any) -> Any:
    """The only column of images, as bytes instead of decoded."""
    import datasets

    found = [name for name, kind in table.features.items() if isinstance(kind, datasets.Image)]
    if len(found) != 1:
        there = several(list(table.features))
        raise DataInvalid(f"data folder {str(root)!r} has {len(found)} columns of images in {part} (its columns: {there}); accepted is one")
    return table.select_columns(found).cast_column(found[0], datasets.Image(decode=False))


def _encoded(root: Path, part: str, column: Any, row: int) -> Encoded:
    (found,) = column[row].values()
    where = f"{root}/{part}/{row}"
    if not isinstance(found, dict) or found.get("bytes") is None:
        raise DataInvalid(f"image {where!r} is not in the table; accepted are images that were saved with it")
    return Encoded(found["bytes"], where)


def _checked_hash(root: Path, part: str, column: Any, row: int) -> str:
    image = _encoded(root, part, column, row)
    check(image)
    return hashlib.sha256(image.getvalue()).hexdigest()
