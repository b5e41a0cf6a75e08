"""Plans of the very statements that the store's own functions send, on both databases."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from services.store.database import Database


@contextmanager
def undone(database: Database) -> Iterator[Session]:
    """A session for writing whose transaction is rolled back."""
    with Session(database._writer) as session:
        yield session
        session.rollback()


@contextmanager
def caught(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Every question and change that is sent while the block runs, with its parameters; row by row inserts left out."""
    found: list[tuple[str, Any]] = []

    def catch(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if re.match(r"SELECT|UPDATE|DELETE", statement) and "EXPLAIN" not in statement:
            found.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", catch)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", catch)


def plan_of(session: Session, statement: str, parameters: Any) -> str:
    """The plan of a statement, as one line for each step."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        return "\n".join(str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters))
    return "\n".join(str(row[0]) for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))


def whole_tables(plan: str, large: Collection[str]) -> list[str]:
    """Large tables that a plan reads from end to end, or along an index from its start: SQLite says SCAN, PostgreSQL Seq Scan."""
    scans = re.findall(r"^SCAN (\w+)|Seq Scan on (\w+)", plan, re.MULTILINE)
    return [name for pair in scans for name in pair if name in large]
