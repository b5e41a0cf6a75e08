"""The grammar of backbone names, for those who must not load timm to read one. Imports nothing."""

LOCAL = "local-dir"


def local_folder(name: str) -> str | None:
    """The folder of a `local-dir:FOLDER` name, whose prefix timm takes in any case; None for a name of another kind."""
    source, separator, folder = name.partition(":")
    return folder if separator and source.lower() == LOCAL else None
