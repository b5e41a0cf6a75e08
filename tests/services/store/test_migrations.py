"""Migrations: upwards from empty, again, by many at once, and back."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

import services.store
from services.protocol import PROTOCOL
from services.store import jobs, lineage, search_state
from services.store.database import Database
from services.store.jobs import Lease
from services.store.models import Base
from services.store.search_state import Fitness
from tests.services.store.concurrency import at_once, in_processes
from tests.services.store.processes import migrate
from tests.services.store.rows import add_job, change_job, claim, contents, evaluation, job_of
from tests.services.store.study_rows import driven, submit

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


def test_evaluations_of_the_first_schema_become_those_by_accuracy(empty_database: Database) -> None:
    empty_database.migrate("0001")
    _fill_first_schema(empty_database)

    empty_database.migrate()

    assert _differences(empty_database) == []
    with empty_database.read() as session:
        row = search_state.known(session, "supernet", "val", PROTOCOL, "accuracy", ["a"])["a"]
        assert search_state.fitness_of(row) == Fitness(0.1 + 0.2, 1.5, 10, None, 0.1 + 0.2)
        assert [(g.best_accuracy, g.best_fitness) for g in search_state.generations(session, "job")] == [(0.75, 0.75)]
        job = jobs.get(session, "job")
        assert len(search_state.evaluated_candidates(session, job)) == 1
        assert (job.user_name, job.priority, job.run_seconds, job.retry, job.next_try_at) == ("default", 0, 0.0, None, None)
    with empty_database.write() as session:
        assert len(search_state.add_evaluations(session, [evaluation("a", metric="MulticlassF1Score"), evaluation("b")])) == 2


def test_job_of_the_previous_release_goes_on_in_the_queue(empty_database: Database) -> None:
    empty_database.migrate("0002")
    moment = "2026-01-01 00:00:00+00:00"
    with empty_database.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO backbones (key, spec, state, requested_at) VALUES ('k', '{{}}', 'ready', '{moment}')"))
        columns = "id, name, state, request, backbone_key, data, cancel_requested, attempts, lease_epoch, created_at"
        values = f"'job', 'old', 'queued', '{{}}', 'k', '{{}}', false, 1, 4, '{moment}'"
        connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({values})"))

    empty_database.migrate()

    assert claim(empty_database) == Lease("job", "runner", 5)


def test_downgrade_to_the_first_schema_keeps_what_it_can_hold(empty_database: Database) -> None:
    empty_database.migrate("0001")
    _fill_first_schema(empty_database)
    before = _first_evaluations(empty_database)
    empty_database.migrate()
    with empty_database.write() as session:
        search_state.add_evaluations(session, [evaluation("a", metric="MulticlassF1Score")])

    _downgrade(empty_database, "0001")

    assert _first_evaluations(empty_database) == before


def test_jobs_and_evaluations_of_before_lineage_stand_by_themselves(empty_database: Database) -> None:
    empty_database.migrate("0001")
    _fill_first_schema(empty_database)
    empty_database.migrate("0002")
    before = _first_evaluations(empty_database)

    empty_database.migrate()

    job = job_of(empty_database, "job")
    assert (job.pause_requested, job.inherited, lineage.origin_of(job), job.waiting_for) == (False, 0, None, None)
    assert _first_evaluations(empty_database) == [row | {"job_id": None, "generation": None} for row in before]
    assert add_job(empty_database)


def test_job_that_waited_in_its_runner_goes_on_and_may_wait_in_the_queue(empty_database: Database) -> None:
    empty_database.migrate("0004")
    moment = "2026-01-01 00:00:00+00:00"
    with empty_database.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO backbones (key, spec, state, requested_at) VALUES ('k', '{{}}', 'ready', '{moment}')"))
        columns = "id, name, user_name, priority, state, request, backbone_key, data, cancel_requested, attempts, run_seconds, lease_epoch"
        columns += ", lease_owner, lease_expires_at, waiting_for, created_at"
        values = f"'job', 'old', 'ada', 0, 'running', '{{}}', 'k', '{{}}', false, 0, 0, 3, 'gone', '{moment}', 'maker', '{moment}'"
        connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({values})"))

    empty_database.migrate()

    job = job_of(empty_database, "job")
    assert (job.waiting_for, job.awaited_key) == ("maker", None)
    change_job(empty_database, "job", state="queued", lease_owner=None, lease_expires_at=None, awaited_key="k" * 64)
    assert claim(empty_database) == Lease("job", "runner", 4)


def test_jobs_of_before_studies_stand_by_themselves_and_studies_may_begin(empty_database: Database) -> None:
    empty_database.migrate("0001")
    _fill_first_schema(empty_database)
    empty_database.migrate("0004")

    empty_database.migrate()

    job = job_of(empty_database, "job")
    assert (job.study_id, job.study_trial, job.cancel_reason) == (None, None, None)
    assert submit(empty_database, driven(empty_database), 1)


def test_job_of_a_study_stands_by_itself_after_a_downgrade(database: Database) -> None:
    job_id = submit(database, driven(database), 1)

    _downgrade(database, "0004")
    database.migrate()

    assert (job_of(database, job_id).state, job_of(database, job_id).study_id) == ("queued", None)


def test_paused_job_is_queued_again_by_a_downgrade(database: Database) -> None:
    job_id = add_job(database, state="paused")

    _downgrade(database, "0002")

    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT state FROM jobs WHERE id = :id"), {"id": job_id}).scalar() == "queued"


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


def _fill_first_schema(database: Database) -> None:
    """One job with one generation of one evaluated candidate, as the first release wrote them."""
    moment = "2026-01-01 00:00:00+00:00"
    rows = [
        ("backbones", {"key": "k", "spec": "{}", "state": "described", "requested_at": moment}),
        (
            "jobs",
            {"id": "job", "name": "old", "state": "succeeded", "request": '{"budget": 7}', "backbone_key": "k", "data": "{}"}
            | {"supernet_key": "supernet", "cancel_requested": False, "attempts": 0, "lease_epoch": 1, "created_at": moment},
        ),
        ("artifacts", {"id": "a", "kind": "log", "name": "l", "media_type": "x/y", "size": 0, "sha256": "0", "created_at": moment}),
        ("supernets", {"key": "supernet", "recipe": "{}", "history": "[]", "artifact_id": "a", "seconds": 1.0, "created_at": moment}),
        (
            "generations",
            {"job_id": "job", "number": 0, "best_hash": "a", "best_accuracy": 0.75, "best_loss": 1.5, "best_parameters": 7}
            | {"evaluated": 1, "from_cache": 0, "seconds": 1.0, "committed_at": moment},
        ),
        (
            "candidates",
            {"job_id": "job", "generation": 0, "position": 0, "config_hash": "a", "config": "c", "parameters": 7}
            | {"operator": "random", "parents": "[]"},
        ),
        (
            "evaluations",
            {"supernet_key": "supernet", "config_hash": "a", "config": "c", "split": "val", "protocol": PROTOCOL}
            | {"accuracy": 0.1 + 0.2, "loss": 1.5, "examples": 10, "parameters": 7, "created_at": moment},
        ),
    ]
    with database.engine.begin() as connection:
        for table, values in rows:
            names = ", ".join(values)
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in values)})"), values)


def _first_evaluations(database: Database) -> list[dict[str, object]]:
    """Every evaluation, whatever the schema."""
    with database.engine.connect() as connection:
        return [dict(row) for row in connection.execute(text("SELECT * FROM evaluations ORDER BY id")).mappings()]


def _downgrade(database: Database, target: str = "base") -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, target)
