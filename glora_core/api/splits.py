"""Labelled images and texts as splits that a backbone takes, with as many classes as its head has."""

from collections.abc import Sequence
from pathlib import Path

from glora_core import backbones
from glora_core.api.backbone import Backbone, as_tuple
from glora_core.data.few_shot import few_shot
from glora_core.data.folders import scan
from glora_core.data.images import ImageSplit, load_split
from glora_core.data.labelled import AnyData
from glora_core.data.readers import TextReader, reader_of
from glora_core.data.rows import Columns
from glora_core.data.tables import read_table
from glora_core.data.text import TextSplit
from glora_core.errors import BackboneUnsupported, DataInvalid


def images(
    folder: str | Path, backbone: Backbone, splits: str | Sequence[str] = ("train", "val"), *, shots: int | None = None, seed: int = 0
) -> tuple[ImageSplit, ...]:
    """Splits of a folder of images, by the backbone's own transform.

    Args:
        folder: `train/`, `val/` and perhaps `test/` with one folder per class, or VTAB-1K's list files.
        splits: of `train`, `val`, `test`, and `train+val` for both together; one, or several.
        shots: so many training images per class, drawn by `seed`; all if absent.

    Raises:
        ConfigInvalid: `shots` is no whole number from 1, or `seed` none from 0.
        DataInvalid: a split is missing or cannot be read, or the folder has other classes than the backbone's head.
    """
    data = scan(str(folder))
    _check_classes(folder, len(data.classes), backbone)
    if shots is not None:
        data = few_shot(data, shots, seed)
    return tuple(load_split(data, name, backbone.info.images) for name in _wanted(folder, data, splits))


def texts(
    path: str | Path,
    backbone: Backbone,
    splits: str | Sequence[str] = ("train", "val"),
    *,
    max_length: int | None = None,
    shots: int | None = None,
    seed: int = 0,
    columns: Columns | None = None,
) -> tuple[TextSplit, ...]:
    """Splits of a table of labelled texts, by the backbone's own tokenizer.

    Args:
        path: a `.csv` or `.jsonl` file with columns `text`, `label` and `split`, a folder with such a file for each split or with one
            named `data`, or a folder that `datasets` saved.
        splits: of `train`, `val`, `test`, and `train+val` for both together; one, or several.
        max_length: longer texts are cut to so many tokens, at least 1; as many as the backbone reads if absent.
        shots: so many training texts per class, drawn by `seed`; all if absent.
        columns: what the columns are called, where not by these names.

    Raises:
        ConfigInvalid: no such length, or more than the backbone reads; `shots` or `seed` as of `images`.
        DataInvalid: a split is missing or cannot be read, or the table has other classes than the backbone's head.
        BackboneUnsupported: the backbone is no text classifier.
        LibraryMissing: see `read_table`.
    """
    if not backbone.info.reads_texts:
        raise BackboneUnsupported(f"backbone {backbone.spec.name!r} does not classify texts; accepted is transformers:FOLDER")
    reader = reader_of(backbone.spec, backbone.info, max_length)
    assert isinstance(reader, TextReader)
    table = read_table(path, columns)
    _check_classes(path, len(table.classes), backbone)
    if shots is not None:
        table = few_shot(table, shots, seed)
    return tuple(reader.load(table, name) for name in _wanted(path, table, splits))


def _wanted(path: str | Path, data: AnyData, splits: str | Sequence[str]) -> tuple[str, ...]:
    """Names of splits, all of which are there."""
    wanted = as_tuple(splits)
    missing = [name for name in wanted if name not in data.names]
    if missing:
        raise DataInvalid(f"{path} has no split {missing[0]!r}; it has {', '.join(data.names)}")
    return wanted


def _check_classes(path: str | Path, classes: int, backbone: Backbone) -> None:
    head = backbones.outputs(backbone.model)
    if classes != head:
        raise DataInvalid(f"{path} has {classes:,} classes and the backbone's head {head:,}; load it with classes={classes}")
