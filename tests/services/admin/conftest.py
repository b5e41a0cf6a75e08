"""Every backend of the store, and no setting from outside."""

import os
from pathlib import Path

import pytest

from tests.services.store.conftest import *  # noqa: F403


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from the environment or a `.env` file."""
    for name in [name for name in os.environ if name.startswith("GLORA_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
