"""Migrations: upwards from empty, again, by many at once, and back."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect

import services.store
from services.store.database import Database
from services.store.models import Base
from tests.services.store.concurrency import at_once, in_processes
from tests.services.store.processes import migrate
from tests.services.store.rows import add_job, contents, job_of

MIGRATIONS = Path(services.store.__file__).parent / "migrations"


def test_migrating_from_empty_gives_the_schema_of_the_models(empty_database: Database) -> None:
    empty_database.migrate()

    assert _differences(empty_database) == []


def test_difference_between_schema_and_models_is_noticed(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_jobs_supernet_key")

    assert [difference[0] for difference in _differences(database)] == ["add_index"]


def test_migrating_twice_changes_nothing(database: Database) -> None:
    job_id = add_job(database)
    before = contents(database)

    database.migrate()

    assert contents(database) == before
    assert job_of(database, job_id).state == "queued"


def test_migrating_by_threads_at_once_is_harmless(empty_url: str) -> None:
    databases = [Database(empty_url) for _ in range(4)]

    at_once(*(database.migrate for database in databases))

    assert _differences(databases[0]) == []
    for database in databases:
        database.dispose()


def test_migrating_by_processes_at_once_is_harmless(empty_database: Database) -> None:
    failures = in_processes(2, migrate, empty_database.url)

    assert failures == []
    assert _differences(empty_database) == []


def test_downgrade_leaves_no_table_behind(database: Database) -> None:
    add_job(database)

    _downgrade(database)

    assert inspect(database.engine).get_table_names() == ["alembic_version"]


def test_schema_after_downgrade_and_upgrade_is_that_of_the_models(database: Database) -> None:
    _downgrade(database)

    database.migrate()

    assert _differences(database) == []


def test_failed_migration_leaves_nothing_behind(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = command.upgrade

    def fail_at_the_end(config: Config, target: str) -> None:
        upgrade(config, target)
        raise RuntimeError("no space left")

    monkeypatch.setattr(command, "upgrade", fail_at_the_end)
    with pytest.raises(RuntimeError, match="no space left"):
        empty_database.migrate()

    assert inspect(empty_database.engine).get_table_names() == []


def _differences(database: Database) -> list[object]:
    with database.engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))


def _downgrade(database: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
