"""Fixtures shared by the tests of the API and of the client: settings, application, store, data folder and server."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from services.api.app import create_app
from services.settings import Settings
from services.store.blobs import BlobStore
from services.store.database import Database
from tests.services.api import stock
from tests.services.api.listening import Listening, Switch

__all__ = ["app", "backbone", "blobs", "data", "database", "front", "http", "isolated", "migrated", "server", "settings"]


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from the environment or a `.env` file, and relative paths lie in the test's own folder."""
    for name in [name for name in os.environ if name.startswith("GLORA_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings(isolated: None, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", describe_seconds=10)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the schema in it and no rows; a copy is ready sooner than a fresh migration."""
    path = tmp_path_factory.mktemp("migrated") / "glora.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.dispose()
    return path


@pytest.fixture
def app(settings: Settings, migrated: Path) -> Iterator[FastAPI]:
    settings.home.mkdir()
    shutil.copy(migrated, settings.home / "glora.db")
    application = create_app(settings)
    yield application
    application.state.database.dispose()


@pytest.fixture
def database(app: FastAPI) -> Database:
    return app.state.database


@pytest.fixture
def blobs(app: FastAPI) -> BlobStore:
    return app.state.blobs


@pytest.fixture
def http(app: FastAPI) -> TestClient:
    """Calls the application as a client would, without following redirects; a crash is an answer with status 500."""
    return TestClient(app, raise_server_exceptions=False, follow_redirects=False)


@pytest.fixture
def backbone(database: Database) -> str:
    """Key of a described backbone."""
    return stock.add_backbone(database)


@pytest.fixture(scope="session")
def front() -> Iterator[tuple[Switch, Listening]]:
    """One server for all tests, since starting and stopping one takes longer than most of them."""
    switch = Switch()
    with Listening(switch) as listening:
        yield switch, listening


@pytest.fixture
def server(app: FastAPI, front: tuple[Switch, Listening]) -> Listening:
    """A real server over the application of this test; it must not be stopped."""
    switch, listening = front
    switch.app = app
    return listening


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of two 4×4 images each, for train and val."""
    root = tmp_path / "flowers"
    for split in ("train", "val"):
        for label in ("daisy", "tulip"):
            for index in range(2):
                folder = root / split / label
                folder.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 4), (index, 90, 180)).save(folder / f"{index}.png")
    return root
