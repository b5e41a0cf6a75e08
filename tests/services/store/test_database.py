"""Transactions, times and connections, on every backend."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError, StatementError

from services.store.database import Database
from services.store.models import Job
from tests.services.store.conftest import Connect
from tests.services.store.rows import EPOCH, add_job, contents, job_of


def test_write_is_undone_when_its_block_raises(database: Database) -> None:
    job_id = add_job(database)
    before = contents(database)

    with pytest.raises(RuntimeError, match="power cut"), database.write() as session:
        session.get_one(Job, job_id).name = "renamed"
        session.flush()
        raise RuntimeError("power cut")

    assert contents(database) == before


def test_write_is_seen_by_others_once_its_block_ends(database: Database, connect: Connect) -> None:
    job_id = add_job(database)

    with database.write() as session:
        session.get_one(Job, job_id).name = "renamed"
        session.flush()
        during = job_of(connect(), job_id).name

    assert during == "toy"
    assert job_of(connect(), job_id).name == "renamed"


def test_reader_sees_one_state_from_its_first_question_to_its_last(database: Database, connect: Connect) -> None:
    add_job(database)
    count = select(func.count()).select_from(Job)

    with database.read() as session:
        first = session.scalar(count)
        add_job(connect())
        last = session.scalar(count)

    assert (first, last) == (1, 1)


def test_row_that_names_a_missing_row_is_refused(database: Database) -> None:
    job_id = add_job(database)

    with pytest.raises(IntegrityError), database.write() as session:
        session.get_one(Job, job_id).backbone_key = "nobody"


def test_naive_time_is_refused_when_written(database: Database) -> None:
    job_id = add_job(database)
    before = contents(database)

    with pytest.raises(StatementError, match="naive datetime"), database.write() as session:
        session.get_one(Job, job_id).started_at = datetime(2026, 1, 1)

    assert contents(database) == before


def test_naive_time_is_refused_in_a_question(database: Database) -> None:
    with pytest.raises(StatementError, match="naive datetime"), database.read() as session:
        session.scalars(select(Job).where(Job.created_at < datetime(2026, 1, 1))).all()


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(datetime(2026, 3, 29, 1, 30, 0, 123456, UTC), id="utc"),
        pytest.param(datetime(2026, 3, 29, 7, 0, 0, 1, timezone(timedelta(hours=5, minutes=30))), id="east"),
        pytest.param(datetime(2026, 3, 28, 22, 30, tzinfo=timezone(timedelta(hours=-3))), id="west"),
    ],
)
def test_time_comes_back_as_the_same_instant_in_utc(database: Database, written: datetime) -> None:
    job_id = add_job(database, started_at=written)

    read = job_of(database, job_id).started_at

    assert read == written
    assert read is not None and read.utcoffset() == timedelta(0)


def test_times_of_different_zones_are_compared_as_instants(database: Database) -> None:
    east = timezone(timedelta(hours=5))
    add_job(database, name="earlier", created_at=EPOCH.replace(hour=6).astimezone(east))
    add_job(database, name="later", created_at=EPOCH.replace(hour=8))

    with database.read() as session:
        names = session.scalars(select(Job.name).where(Job.created_at < EPOCH.replace(hour=7))).all()

    assert names == ["earlier"]


@pytest.mark.parametrize("backend", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgres_url_needs_no_drivers_name(migrated_url: str, scheme: str) -> None:
    database = Database(migrated_url.replace("postgresql", scheme, 1))

    job_id = add_job(database)

    assert job_of(database, job_id).state == "queued"
    database.dispose()


@pytest.mark.parametrize("backend", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_connection_that_the_server_closed_is_replaced(database: Database, connect: Connect) -> None:
    job_id = add_job(database)
    others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with connect().engine.begin() as connection:
        closed = connection.exec_driver_sql(others).scalar_one()

    state = job_of(database, job_id).state

    assert closed > 0
    assert state == "queued"
