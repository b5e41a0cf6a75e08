"""Engines, sessions and migrations: SQLite (WAL) and PostgreSQL behind one small class.

A write transaction on SQLite takes the write lock when it begins (`BEGIN IMMEDIATE`), so that two processes never meet
in the middle of a transaction: they wait for each other instead of failing with "database is locked".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_MS = 30_000


class Database:
    """One database, from its SQLAlchemy URL.

    Sessions commit when their block ends and roll back when it raises.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._sqlite = make_url(url).get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(url) if self._sqlite else create_engine(_with_driver(url), pool_pre_ping=True)
        self._writer = self.engine.execution_options(glora_write=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; it sees one consistent state."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session for one write transaction."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self, revision: str = "head") -> None:
        """Bring the schema up to a revision; safe to call by several processes at once."""
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        with self._writer.begin() as connection:
            if not self._sqlite:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7105119)")
            config.attributes["connection"] = connection
            command.upgrade(config, revision)

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _with_driver(url: str) -> str:
    parsed = make_url(url)
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)


def _sqlite_engine(url: str) -> Engine:
    path = make_url(url).database
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": _BUSY_MS / 1000})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_MS}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        write = connection.get_execution_options().get("glora_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
