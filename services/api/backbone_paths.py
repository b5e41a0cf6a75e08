"""Which backbone names are folders that the service reads, so that they are bound to the data roots like data. Imports no torch."""

import re
from pathlib import Path

from glora_core.names import LOCAL, TRANSFORMERS, local_folder, transformers_name

STAMPED = ("config.json", "tokenizer_config.json")
"""Files of a folder that say what the backbone in it is."""
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
