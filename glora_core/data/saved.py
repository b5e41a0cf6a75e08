"""Folders that Hugging Face `datasets` saved (`save_to_disk`), one table or one for each split; without torch.

That library is optional and loaded on use. It follows what the folder's own files say, which may lead elsewhere: they are looked at first,
and no column is decoded that nobody asked for.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glora_core.data.labels import check_name, short
from glora_core.data.rows import SPLITS, Columns, Row, checked_row
from glora_core.errors import DataInvalid, LibraryMissing

_DICT, _STATE = _MARKS = ("dataset_dict.json", "state.json")
_LARGEST_DESCRIPTION = 16 * 2**20
"""Bytes of a file that describes tables, at most."""
_AT_ONCE = 1000


def is_saved(root: Path) -> bool:
    """Whether `datasets` has saved a folder, by the file that it puts there."""
    return any((root / name).is_file() for name in _MARKS)


def saved_files(root: Path) -> list[Path]:
    """Every file of a saved folder."""
    return sorted(path for path in root.rglob("*") if path.is_file())


def saved_tables(root: Path) -> dict[str | None, Any]:
    """The tables of a saved folder by the name of their split, None where there is one without a name.

    Raises:
        LibraryMissing: `datasets` is not installed.
        DataInvalid: it cannot read the folder, or a split has a name that is none.
    """
    try:
        import datasets
    except ImportError as error:
        raise LibraryMissing(f"{str(root)!r} was saved by the library datasets, which is not installed; pip install datasets") from error
    _check_descriptions(root)
    try:
        saved = datasets.load_from_disk(str(root))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataInvalid(f"data folder {str(root)!r} cannot be read by datasets: {error}") from error
    parts: dict[str | None, Any] = {None: saved} if isinstance(saved, datasets.Dataset) else dict(saved)
    return parts


def values_of(table: Any, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of some columns as they are stored; datasets would decode images and sounds, and fetch those that are told by an address."""
    for batch in table.select_columns(columns).with_format("arrow").iter(batch_size=_AT_ONCE):
        yield from batch.to_pylist()


def saved_rows(root: Path, columns: Columns, only: str | None = None) -> tuple[list[Row], list[str] | None]:
    """Rows of labelled texts, and the class names where labels are numbers of named classes.

    Args:
        only: this split alone, or a table without a name as it.

    Raises:
        LibraryMissing, DataInvalid: as `saved_tables`; or a row that cannot be used.
    """
    parts = chosen_tables(root, only)
    names = class_names(root, parts, columns.label)
    return [row for part, table in parts.items() for row in _rows(root, part, table, names, columns)], names


def chosen_tables(root: Path, only: str | None) -> dict[str | None, Any]:
    """The tables of a saved folder, or the one of a split. Raises as `saved_tables`, and DataInvalid if there is none of that split."""
    parts = saved_tables(root)
    if only is None:
        return parts
    found = [table for part, table in parts.items() if part is None or SPLITS[part] == only]
    if not found:
        raise DataInvalid(f"test folder {str(root)!r} has no split {only!r}; it has {', '.join(map(str, parts))}")
    return {only: found[0]}


def class_names(root: Path, parts: dict[str | None, Any], label: str) -> list[str] | None:
    """Names of the classes, if all tables have the same; None if their labels are no numbers of named classes. Raises DataInvalid."""
    found = [getattr(table.features.get(label), "names", None) for table in parts.values()]
    if any(names != found[0] for names in found):
        raise DataInvalid(f"data folder {str(root)!r}: the splits name their classes in different ways; accepted is one way for all")
    for name in found[0] or ():
        check_name(f"a class of {str(root)!r}", name)
    return found[0]


def class_name(where: str, label: Any, names: list[str] | None) -> Any:
    """A label by its name, where it is a number of a named class. Raises DataInvalid if there is no such number."""
    if not names:
        return label
    if not isinstance(label, int) or not 0 <= label < len(names):
        raise DataInvalid(f"{where}: label is {short(label)}; accepted is 0 to {len(names) - 1}")
    return names[label]


def _rows(root: Path, part: str | None, table: Any, names: list[str] | None, columns: Columns) -> Iterator[Row]:
    split = None if part is None else SPLITS[part]
    for number, record in enumerate(values_of(table, table.column_names)):
        where = f"{str(root)!r} {part or ''} row {number}"
        known = {columns.label: class_name(where, record.get(columns.label), names)} if columns.label in record else {}
        yield checked_row(where, f"{part or ''} row {number}".strip(), record | known, split, columns)


def _check_descriptions(root: Path) -> None:
    """Raise DataInvalid if the files that describe a folder's tables name another split than is known, or a file outside of it."""
    parts = _described(root / _DICT).get("splits", []) if (root / _DICT).is_file() else ["."]
    for part in parts if isinstance(parts, list) else [parts]:
        if part != "." and part not in SPLITS:
            raise DataInvalid(f"data folder {str(root)!r} has a split {short(part)}; accepted are {', '.join(SPLITS)}")
        _described(root / part / "dataset_info.json")
        files = _described(root / part / _STATE).get("_data_files", [])
        for file in files if isinstance(files, list) else [files]:
            name = file.get("filename") if isinstance(file, dict) else None
            if not isinstance(name, str) or Path(name).name != name:
                raise DataInvalid(f"{str(root / part / _STATE)!r} names {short(name)} as a file of the table; accepted are files beside it")


def _described(file: Path) -> dict[str, Any]:
    """A file that describes tables; empty where there is none."""
    if not file.is_file():
        return {}
    size = file.stat().st_size
    if size > _LARGEST_DESCRIPTION:
        raise DataInvalid(f"{str(file)!r} has {size:,} bytes; accepted are up to {_LARGEST_DESCRIPTION:,}")
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataInvalid(f"{str(file)!r} is not JSON: {error}") from error
    return found if isinstance(found, dict) else {}
