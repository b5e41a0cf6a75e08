"""What is SQLite's alone: many writers on one file, and readers beside them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from services.store import jobs
from services.store.database import Database
from tests.services.store.concurrency import Background, in_processes
from tests.services.store.conftest import Connect
from tests.services.store.processes import keep_writing
from tests.services.store.rows import add_job, add_running_job, events_of, job_of

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

WRITERS, WRITES = 8, 20


def test_eight_writing_processes_wait_for_each_other_instead_of_failing(database: Database) -> None:
    lease = add_running_job(database)

    failures = in_processes(WRITERS, keep_writing, database.url, lease, WRITES)

    assert failures == []
    written = [event.data["writer"] for event in events_of(database, lease.job_id) if event.kind == "note"]
    assert sorted(written) == sorted(list(range(WRITERS)) * WRITES)


def test_new_file_that_another_process_is_writing_to_is_waited_for(tmp_path: Path, backend: str) -> None:
    with closing(sqlite3.connect(tmp_path / "glora.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        opening = Background(lambda: _journal_mode(Database(f"sqlite:///{tmp_path}/glora.db")))
        opening.give_way()
        other.execute("COMMIT")

        assert opening.result() == "wal"


def test_file_is_in_wal_mode(database: Database) -> None:
    assert _journal_mode(database) == "wal"


def test_reader_is_not_blocked_by_a_writer(database: Database, connect: Connect) -> None:
    job_id, reader = add_job(database), connect()
    with reader.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=0")

    with database.write() as session:
        jobs.get(session, job_id).name = "renamed"
        session.flush()
        read = job_of(reader, job_id)

    assert read.name == "toy"


def test_writer_is_not_blocked_by_a_reader(database: Database, connect: Connect) -> None:
    job_id, writer = add_job(database), connect()
    with writer.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=0")

    with database.read() as session:
        jobs.get(session, job_id)
        with writer.write() as writing:
            jobs.get(writing, job_id).name = "renamed"

    assert job_of(database, job_id).name == "renamed"


def test_folder_of_the_file_is_made(tmp_path: Path, backend: str) -> None:
    database = Database(f"sqlite:///{tmp_path}/not/yet/there/glora.db")

    database.migrate()

    assert (tmp_path / "not/yet/there/glora.db").exists()
    database.dispose()


def _journal_mode(database: Database) -> str:
    with database.engine.connect() as connection:
        return connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
