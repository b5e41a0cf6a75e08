"""What routes need of the application: its database, artifact store and settings."""

from typing import Annotated

from fastapi import Depends, Request

from services.settings import DEFAULT_USER, Settings
from services.store.blobs import BlobStore
from services.store.database import Database


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _blobs(request: Request) -> BlobStore:
    blobs: BlobStore = request.app.state.blobs
    return blobs


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _user(request: Request) -> str:
    user: str = getattr(request.state, "user", None) or DEFAULT_USER
    return user


DatabaseDep = Annotated[Database, Depends(_database)]
BlobsDep = Annotated[BlobStore, Depends(_blobs)]
SettingsDep = Annotated[Settings, Depends(_settings)]
UserDep = Annotated[str, Depends(_user)]
