"""What runs of the matrix have found, kept as one JSON file: by cell its latest verdict and times, and what they were measured on."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parents[2] / "docs" / "reliability.json"
"""The record that the documentation is made from; written by runs with `GLORA_CHAOS_RECORD=1` alone."""


def wanted() -> bool:
    """Whether this run is to be recorded."""
    return os.environ.get("GLORA_CHAOS_RECORD") == "1"


def note(section: str, name: str, found: dict[str, Any], path: Path = RECORD) -> None:
    """Add or replace one entry, in a file that is never half written."""
    document = read(path)
    document.setdefault(section, {})[name] = found | {"on": datetime.now(UTC).date().isoformat()}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    part.replace(path)


def read(path: Path = RECORD) -> dict[str, Any]:
    """All entries by section and name; empty before the first run."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found
