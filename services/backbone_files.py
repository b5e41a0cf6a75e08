"""Which backbones are files that the service reads, bound to the data roots like data: looked at before a library follows what is in them.

The same at submission, when a scheduler describes them, and in a job's runner. Imports no torch.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from glora_core.data.inside import check_inside
from glora_core.data.labels import short
from glora_core.errors import DataInvalid
from glora_core.names import LOCAL, TRANSFORMERS, local_folder, transformers_name

STAMPED = ("config.json", "tokenizer_config.json")
"""Files of a folder that say what the backbone in it is."""
LARGEST_CONFIG = 16 * 2**20
"""Bytes of such a file, or of an index of weights, at most."""
_ADAPTER = "adapter_config.json"
_INDEX = "*.index.json"
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


def folder_of(name: str) -> str | None:
    """The folder of a `local-dir:` or `transformers:` name; None for one that a library or a model hub resolves.

    transformers takes a folder where there is one, even below its own working folder, and only then asks the hub.
    """
    found = transformers_name(name)
    if found is None:
        return local_folder(name)
    return None if _HUB_NAME.fullmatch(found) and not Path(found).exists() else found


def with_folder(name: str, folder: Path) -> str:
    """The same kind of name with another folder."""
    return f"{LOCAL if transformers_name(name) is None else TRANSFORMERS}:{folder}"


def check_backbone(name: str, weights: str | None, roots: Sequence[Path]) -> None:
    """Refuse a backbone whose folder, or file of weights, leads to what does not lie below the data roots.

    Raises:
        DataInvalid: a link, or an index of weights, leads out; a pipe, a socket or a device is there; a file of configuration is
            larger than `LARGEST_CONFIG`; or the folder holds an adapter, which stands for a model elsewhere.
    """
    if weights is not None:
        check_inside(weights, roots)
    told = folder_of(name)
    if told is None:
        return
    check_inside(told, roots)
    folder = Path(told)
    if transformers_name(name) is not None and (folder / _ADAPTER).exists():
        raise DataInvalid(f"backbone folder {told!r} has {_ADAPTER}, which names another model as its base; accepted is a whole model")
    indices = sorted(folder.glob(_INDEX))
    for file in (*(folder / name for name in STAMPED), *indices):
        if file.is_file() and file.stat().st_size > LARGEST_CONFIG:
            raise DataInvalid(f"{str(file)!r} has {file.stat().st_size:,} bytes; accepted are up to {LARGEST_CONFIG:,}")
    for file in indices:
        _check_index(file)


def _check_index(file: Path) -> None:
    """Raise DataInvalid if an index of weights names files that do not lie beside it."""
    try:
        index = json.loads(file.read_bytes())
        names = set(index["weight_map"].values())
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise DataInvalid(f"{str(file)!r} is no index of weights: {type(error).__name__}; accepted is what transformers writes") from error
    strange = next((name for name in names if not isinstance(name, str) or Path(name).name != name), None)
    if strange is not None:
        raise DataInvalid(f"{str(file)!r} names {short(strange)} as a file of weights; accepted are files beside it")
