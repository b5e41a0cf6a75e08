"""How many jobs a pool believes to share the cluster with."""

import pytest
from sqlalchemy.exc import OperationalError

from services.scheduler.evaluators import JobsRunning
from services.store.database import Database
from tests.services.store.rows import add_job, add_running_job


def test_running_jobs_are_counted_and_waiting_ones_are_not(database: Database) -> None:
    add_running_job(database)
    add_running_job(database)
    add_job(database)

    assert JobsRunning(database)() == 2


def test_last_count_holds_while_the_database_is_away(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    add_running_job(database)
    add_running_job(database)
    running = JobsRunning(database)
    assert running() == 2

    def away() -> None:
        raise OperationalError("SELECT", {}, Exception("the server is starting"))

    monkeypatch.setattr(database, "read", away)

    assert running() == 2
