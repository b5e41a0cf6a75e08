"""The grammar of backbone names, for those who must not load timm to read one. Imports nothing."""

LOCAL, TRANSFORMERS = "local-dir", "transformers"


def local_folder(name: str) -> str | None:
    """The folder of a `local-dir:FOLDER` name, whose prefix timm takes in any case; None for a name of another kind."""
    return _after(LOCAL, name)


def transformers_name(name: str) -> str | None:
    """The folder or hub name of a `transformers:NAME` name, the prefix in any case; None for a name of another kind."""
    return _after(TRANSFORMERS, name)


def _after(prefix: str, name: str) -> str | None:
    source, separator, rest = name.partition(":")
    return rest if separator and source.lower() == prefix else None
