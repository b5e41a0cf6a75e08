"""Engines, sessions and migrations: SQLite (WAL) and PostgreSQL behind one small class.

A write transaction on SQLite takes the write lock when it begins (`BEGIN IMMEDIATE`), so that two processes never meet
in the middle of a transaction: they wait for each other instead of failing with "database is locked".
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event
from sqlalchemy import insert as insert_into
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Session

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_MS = 30_000
_IDLE_MS = 20_000


class Database:
    """One database, from its SQLAlchemy URL.

    Sessions commit when their block ends and roll back when it raises.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._sqlite = make_url(url).get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(url) if self._sqlite else _postgres_engine(url)
        self._writer = self.engine.execution_options(glora_write=True)
        snapshot: dict[str, Any] = {} if self._sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reader = self.engine.execution_options(**snapshot)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; it sees one consistent state from its first question to its last."""
        with Session(self._reader, expire_on_commit=False) as session, session.begin():
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

    def revision(self) -> str | None:
        """The schema's revision; None for a database without one."""
        with self.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def revisions() -> list[str]:
    """All revisions of the schema that this software knows, the newest first."""
    return [script.revision for script in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()]


def insert_new(session: Session, rows: Sequence[DeclarativeBase]) -> list[Any]:
    """Insert rows of one model unless equal keys are there already, also when another session is just inserting them.

    Returns:
        The primary keys of those inserted, each a tuple.
    """
    if not rows:
        return []
    table = type(rows[0]).__table__
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).on_conflict_do_nothing().returning(*table.primary_key)  # type: ignore[arg-type]
    return [tuple(row) for row in session.connection().execute(statement, _values(rows))]


def insert_all(session: Session, rows: Sequence[DeclarativeBase]) -> None:
    """Insert rows of one model, after all that the session was given before; cheaper than `add_all`, which keeps an eye on every row."""
    if rows:
        session.flush()
        session.connection().execute(insert_into(type(rows[0]).__table__), _values(rows))  # type: ignore[arg-type]


def _values(rows: Sequence[DeclarativeBase]) -> list[dict[str, Any]]:
    """What is to be inserted, beside the statement: one that has the rows written out in it would be compiled anew each time."""
    columns = [column.key for column in type(rows[0]).__table__.columns]
    columns = [column for column in columns if any(getattr(row, column) is not None for row in rows)]
    return [{column: getattr(row, column) for column in columns} for row in rows]


def _enter_wal(connection: Any) -> None:
    """Switch a SQLite file to WAL. Its busy timeout does not cover this switch, so a writer is waited for here."""
    deadline = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _with_driver(url: str) -> str:
    parsed = make_url(url)
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)


def _postgres_engine(url: str) -> Engine:
    """Connections that notice within seconds that the server is gone; and a process that is stopped in a transaction loses its locks."""
    patience: dict[str, Any] = {"connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
    patience |= {"tcp_user_timeout": 10_000, "options": f"-c idle_in_transaction_session_timeout={_IDLE_MS}"}
    return create_engine(_with_driver(url), pool_pre_ping=True, connect_args=patience)


def _sqlite_engine(url: str) -> Engine:
    path = make_url(url).database
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": _BUSY_MS / 1000})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        for pragma in (f"busy_timeout={_BUSY_MS}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        _enter_wal(connection)

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        write = connection.get_execution_options().get("glora_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
