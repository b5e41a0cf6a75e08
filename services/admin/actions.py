"""What the `glora admin` commands do, and what they print; a refusal is a short message and exit status 1."""

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NoReturn, TypeVar

from alembic.util import CommandError
from rich.console import Console
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from services.admin.backup import back_up
from services.admin.backup import restore as restore_backup
from services.admin.errors import AdminError
from services.admin.schema import refuse_newer, refuse_older
from services.settings import Settings
from services.store.blobs import BlobStore
from services.store.database import Database
from services.store.errors import WrongState
from services.store.garbage import Garbage, drop_lost, find_garbage, remove

T = TypeVar("T")


def backup(folder: Path, home: Path | None) -> None:
    """Back up into a folder."""
    settings = _settings(home)
    made = _explained(lambda: back_up(_database(settings), _blobs(settings), folder))
    size = sum(made.artifacts.values())
    _say(f"Wrote {folder}/: {made.database} and {len(made.artifacts):,} artifacts of {size:,} bytes.")


def restore(folder: Path, home: Path | None) -> None:
    """Restore from a folder."""
    settings = _settings(home)
    found = _explained(lambda: restore_backup(folder, settings.resolved_database_url, _blobs(settings)))
    moment = found.created_at[:19].replace("T", " ")
    _say(f"Restored the backup of {moment} UTC: database and {len(found.artifacts):,} artifacts.")


def collect(home: Path | None, grace_hours: float, *, dry_run: bool, drop: bool) -> None:
    """Find garbage, say what there is, and remove it unless the run is dry; lost supernets only if these are to be dropped."""
    settings = _settings(home)
    database, blobs, grace = _database(settings), _blobs(settings), timedelta(hours=grace_hours)
    found = _explained(lambda: find_garbage(database, blobs, settings.home.absolute(), grace))
    _show(found)
    if not dry_run and drop:
        _explained(lambda: drop_lost(database, blobs, found))
    if not dry_run:
        _explained(lambda: remove(database, blobs, found, grace))
    verb = "Would remove" if dry_run else "Removed"
    others = len(found.rows) + len(found.claims) + len(found.checkpoints) + len(found.folders) + len(found.uploads)
    _say(f"{verb} {len(found.files):,} files of {found.size:,} bytes, and {others:,} rows, folders and unfinished uploads.")


def migrate(home: Path | None) -> None:
    """Bring the schema up to date."""
    database = Database(_settings(home).resolved_database_url)
    before = _explained(database.revision)
    _explained(lambda: refuse_newer("the database", before))
    _explained(database.migrate)
    after = _explained(database.revision)
    _say(f"Schema {after}, up to date." if before == after else f"Schema {before or 'empty'} → {after}.")


def _show(found: Garbage) -> None:
    """One line for everything that can go, and for what is lost or missing."""
    for file in found.files:
        _say(f"file        {file.path} ({file.size:,} bytes)")
    uploads = [f"{upload.path}, begun {upload.began:%Y-%m-%d %H:%M} UTC" for upload in found.uploads]
    named = {"row": found.rows, "checkpoint": found.checkpoints, "folder": found.folders, "claim": found.claims, "upload": uploads}
    for kind, names in named.items():
        for name in names:
            _say(f"{kind:<11} {name}")
    for key in found.lost:
        _say(f"lost        {key}: a supernet whose bytes are gone; --drop-lost drops it and its evaluations, and it is trained again")
    for name in found.missing:
        _say(f"missing     {name}: its bytes are not in the store; the row stays")


def _say(line: str) -> None:
    Console().print(line, highlight=False, markup=False, soft_wrap=True)


def _settings(home: Path | None) -> Settings:
    return Settings() if home is None else Settings(home=home)


def _database(settings: Settings) -> Database:
    """The service's database, as it is. Exits if its schema is not this software's, or there is none: to open it would be to make one."""
    path = settings.home / "glora.db"
    if not settings.database_url and not path.exists():
        _refuse(f"there is no service in {settings.home}: {path} does not exist; name its folder with --home")
    database = Database(settings.resolved_database_url)
    _explained(lambda: refuse_older(database))
    return database


def _blobs(settings: Settings) -> BlobStore:
    return BlobStore(settings.resolved_artifacts_url, settings.artifacts_endpoint)


def _explained(action: Callable[[], T]) -> T:
    """What an action returns; exits with a message if it cannot be done."""
    try:
        return action()
    except (AdminError, CommandError, WrongState, OSError) as error:
        _refuse(str(error))
    except SQLAlchemyError as error:
        _refuse(f"the database: {getattr(error, 'orig', None) or error}")


def _refuse(message: str) -> NoReturn:
    Console(stderr=True).print(Text("Error:", "red"), Text(message), soft_wrap=True)
    sys.exit(1)
