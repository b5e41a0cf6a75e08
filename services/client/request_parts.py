"""How the commands put a job request together: from a settings file, from options, with paths that the service can read."""

import json
from pathlib import Path
from typing import Any

import typer

_PARTS = ("data", "backbone", "space", "training", "search", "finals")


def absolute(path: str) -> str:
    """A path as the service can read it, whose working folder is another."""
    return str(Path(path).expanduser().resolve())


def named_folders(written: list[str] | None) -> dict[str, str]:
    """Folders by name from words of the form NAME=DIR."""
    found = {}
    for word in written or []:
        name, separator, folder = word.partition("=")
        if not (name and separator and folder) or name in found:
            raise typer.BadParameter(f"{word!r} is not NAME=DIR with a name of its own", param_hint="--also-test")
        found[name] = absolute(folder)
    return found


def absolute_backbone(name: str) -> str:
    """A backbone's name, with the folder of a `local-dir:` name made absolute, and of a `transformers:` name where there is one."""
    source, separator, folder = name.partition(":")
    is_folder = source.lower() == "local-dir" or (source.lower() == "transformers" and Path(folder).expanduser().is_dir())
    return f"{source}:{absolute(folder)}" if separator and is_folder else name


def absolute_paths(request: dict[str, Any]) -> dict[str, Any]:
    """A job request whose paths of data and backbone are as the service can read them; what is not of the right form stays as it is."""
    data, backbone = (dict(part) if isinstance(part := request.get(name), dict) else {} for name in ("data", "backbone"))
    if isinstance(data.get("path"), str):
        data["path"] = absolute(data["path"])
    if isinstance(data.get("also_test"), dict):
        data["also_test"] = {name: absolute(str(folder)) for name, folder in data["also_test"].items()}
    if isinstance(backbone.get("name"), str):
        backbone["name"] = absolute_backbone(backbone["name"])
    if isinstance(backbone.get("weights"), str):
        backbone["weights"] = absolute(backbone["weights"])
    return request | ({"data": data} if data else {}) | ({"backbone": backbone} if backbone else {})


def read_settings(path: Path | None, option: str = "--settings") -> dict[str, Any]:
    """The fields of a settings file, which an option has named; none without a file."""
    if path is None:
        return {}
    try:
        found: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} cannot be read as JSON: {error}", param_hint=option) from error
    parts = [found, *(found.get(part, {}) for part in _PARTS)] if isinstance(found, dict) else [found]
    if not all(isinstance(part, dict) for part in parts) or not isinstance(found.get("data", {}).get("columns") or {}, dict):
        raise typer.BadParameter(f"{path} must hold a JSON object of request fields", param_hint=option)
    return dict(found)


def given(**values: Any) -> dict[str, Any]:
    """The values that were given."""
    return {name: value for name, value in values.items() if value is not None}


def merge(request: dict[str, Any], part: str, values: dict[str, Any]) -> None:
    """Put values into a part of a request, beside those that it has."""
    if values:
        request[part] = request.get(part, {}) | values
