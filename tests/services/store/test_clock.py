"""The clock that leases go by: it is the database's, and setting a machine's clock changes nothing."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import select

from services.store import claims, clock, jobs
from services.store.database import Database
from services.store.models import ClockAnchor
from tests.fakes.wall_clock import jump
from tests.services.store.conftest import Connect
from tests.services.store.rows import add_job, add_running_job, change_job, claim, expire, job_of

JUMPS = [pytest.param(timedelta(days=day), id=f"{day:+d} days") for day in (-400, 400)]


def test_lease_time_goes_on_while_a_transaction_lasts(database: Database) -> None:
    with database.write() as session:
        first = clock.now(session)
        second = clock.now(session)

    assert first < second < first + timedelta(seconds=10)
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("by", JUMPS)
def test_lease_outlives_a_jump_of_the_machines_clock(database: Database, monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    lease = add_running_job(database)
    jump(monkeypatch, by)

    assert claim(database, "another") is None
    assert jobs.renew(database, lease, 3600) is False
    with jobs.fenced(database, lease) as (session, job):
        jobs.succeed(session, job, {})

    assert job_of(database, lease.job_id).state == "succeeded"


@pytest.mark.parametrize("by", JUMPS)
def test_lease_that_has_run_out_stays_so_after_a_jump(
    database: Database, connect: Connect, monkeypatch: pytest.MonkeyPatch, by: timedelta
) -> None:
    lease = add_running_job(database)
    expire(database, lease.job_id)
    jump(monkeypatch, by)

    again = claim(connect(), "another")

    assert again is not None and again.epoch == 2


@pytest.mark.parametrize("by", JUMPS)
def test_what_a_job_is_computing_stays_its_own_after_a_jump(database: Database, monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    first, second = add_running_job(database), add_running_job(database)
    with jobs.fenced(database, first) as (session, _):
        claims.take(session, first, ["key"])
    jump(monkeypatch, by)

    with jobs.fenced(database, second) as (session, _):
        assert claims.holder(session, "key") == first.job_id
        assert claims.take(session, second, ["key"]) == set()
    expire(database, first.job_id)
    with jobs.fenced(database, second) as (session, _):
        assert claims.take(session, second, ["key"]) == {"key"}


def test_steady_clock_is_anchored_once_per_boot(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('clock')}/glora.db")
    database.migrate()
    job_id = add_job(database)
    with database.write() as session:
        before = clock.now(session)
    change_job(database, job_id, state="running", lease_owner="runner", lease_expires_at=before + timedelta(days=2))

    monkeypatch.setattr(clock, "_boot", lambda: "the next boot")
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: 5.0))
    jump(monkeypatch, timedelta(days=1))
    with database.read() as session:
        asked = clock.now(session)
    with database.write() as session:
        after = clock.now(session)
        again = clock.now(session)

    assert asked == after == again == before + timedelta(days=2)
    with database.read() as session:
        assert set(session.scalars(select(ClockAnchor.boot))) >= {"the next boot"}
    database.dispose()


def test_lease_of_an_earlier_boot_has_run_out(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('clock')}/glora.db")
    database.migrate()
    add_running_job(database)

    elapsed = [5.0]
    monkeypatch.setattr(clock, "_boot", lambda: "the next boot")
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: elapsed[0]))
    with database.write() as session:
        clock.now(session)
    elapsed[0] += 1

    again = claim(database, "another")

    assert again is not None and again.epoch == 2
    database.dispose()
