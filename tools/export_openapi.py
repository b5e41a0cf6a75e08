"""Writes docs/openapi.json, the contract of the REST surface, from the application itself.

Run it after a change of a route or a model: `python tools/export_openapi.py`. A test says when it was forgotten.
"""

import json
import tempfile
from pathlib import Path

from services.api.app import create_app
from services.settings import Settings

TARGET = Path(__file__).parents[1] / "docs" / "openapi.json"


def document() -> str:
    """The OpenAPI document as it stands in the file."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        app = create_app(Settings(home=home, database_url=f"sqlite:///{home / 'glora.db'}", artifacts_url=str(home / "artifacts")))
        app.state.database.dispose()
        return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
