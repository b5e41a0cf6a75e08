"""A database written to one file while it is in use, as of one moment, and read back: SQLite itself, PostgreSQL by its own tools.

`snapshot` hands out, for that same moment, which artifacts there are.
"""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from services.admin.errors import AdminError
from services.store.database import Database
from services.store.models import Artifact

SQLITE, POSTGRES = "database.sqlite", "database.dump"
_TOOLS = (
    "is needed for PostgreSQL and was not found; install the client tools of the server's version (`apt-get install postgresql-client`)"
)

Files = dict[str, int]
"""Sizes in bytes of artifacts by their hash."""


def is_sqlite(url: str) -> bool:
    """Whether a database URL is one of SQLite."""
    return make_url(url).get_backend_name() == "sqlite"


def dump(database: Database, folder: Path) -> tuple[str, Files]:
    """Write a database into a folder, as NAME.part; returns NAME, and the artifacts that were there at that moment.

    Raises:
        AdminError: PostgreSQL's `pg_dump` is not there, or fails.
    """
    if is_sqlite(database.url):
        part = folder / f"{SQLITE}.part"
        _remove_sqlite(part)
        _copy_sqlite(Path(str(make_url(database.url).database)), part)
        copy = Database(f"sqlite:///{part}")
        with copy.read() as session:
            files = _files(session)
        _settle(part, copy)
        return SQLITE, files
    with _exported(database) as (snapshot, files):
        _run("pg_dump", database.url, "--format=custom", f"--snapshot={snapshot}", f"--file={folder / POSTGRES}.part")
    return POSTGRES, files


def load(url: str, source: Path) -> None:
    """Read a dump into a database that is not there, or is empty.

    Raises:
        AdminError: it is of another kind of database, the database is not empty, or `pg_restore` is not there or fails.
    """
    if (source.name == SQLITE) != is_sqlite(url):
        kind = "SQLite" if source.name == SQLITE else "PostgreSQL"
        raise AdminError(
            f"the backup is of a {kind} database; set GLORA_DATABASE_URL to one, or leave it out for SQLite in the home folder"
        )
    if not is_sqlite(url):
        _run("pg_restore", url, "--exit-on-error", "--single-transaction", "--no-owner", str(source))
        return
    target = Path(str(make_url(url).database))
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    shutil.copyfile(source, part)
    _remove_sqlite(target)  # a log without its database would be replayed over the restored one
    part.replace(target)


def refuse_full(url: str) -> None:
    """Raise AdminError if there is anything in the database."""
    if is_sqlite(url):
        path = Path(str(make_url(url).database))
        if path.exists():
            raise AdminError(f"there is a database at {path}; a backup is restored into an empty home only")
        return
    database = Database(url)
    with database.read() as session:
        tables = session.scalar(text("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"))
    database.dispose()
    if tables:
        raise AdminError(f"the database has {tables} tables; a backup is restored into an empty one only")


def _remove_sqlite(path: Path) -> None:
    """Remove a database's file, if it is there, and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def _copy_sqlite(source: Path, target: Path) -> None:
    """Copy by SQLite's backup in a single step: readers and writers go on meanwhile, and the copy is of one moment."""
    if not source.exists():
        raise AdminError(f"there is no database at {source}")
    read, write = sqlite3.connect(source, timeout=60), sqlite3.connect(target)
    try:
        read.backup(write)
    finally:
        read.close()
        write.close()


def _settle(path: Path, copy: Database) -> None:
    """Leave one file without a write-ahead log beside it."""
    copy.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()


@contextmanager
def _exported(database: Database) -> Iterator[tuple[str, Files]]:
    """A snapshot that `pg_dump` can join while the block runs, however long, and the artifacts that it has."""
    with database.read() as session:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        snapshot = session.scalar(text("SELECT pg_export_snapshot()"))
        yield str(snapshot), _files(session)


def _files(session: Session) -> Files:
    return {row.sha256: row.size for row in session.execute(select(Artifact.sha256, Artifact.size))}


def _run(tool: str, url: str, *arguments: str) -> None:
    """Run one of PostgreSQL's tools on a database; the password goes by the environment, which other users cannot see."""
    program = shutil.which(tool)
    if program is None:
        raise AdminError(f"{tool} {_TOOLS}")
    parsed = make_url(url).set(drivername="postgresql")
    environment = os.environ | ({"PGPASSWORD": str(parsed.password)} if parsed.password else {})
    address = parsed.set(password=None).render_as_string(hide_password=False)
    ended = subprocess.run([program, f"--dbname={address}", *arguments], env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise AdminError(f"{tool} failed: {ended.stderr.strip()[-2000:]}")
