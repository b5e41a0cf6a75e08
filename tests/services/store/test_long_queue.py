"""A queue of 10,000 jobs: what a job or a page of them is told comes from an index, and reads no row that it does not tell of."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from services.store import backbones, clock, jobs, places
from services.store.database import Database
from services.store.models import Claim, Job
from services.store.queue import Quotas
from tests.services.store.plans import caught, plan_of, undone, whole_tables
from tests.services.store.queue_reference import in_order
from tests.services.store.rows import EPOCH, SPEC

pytestmark = pytest.mark.slow

QUEUED, OVER = 10_000, 2_000
RUNNING = (6, 12)
CLAIMED = ("awaited", *map(str, range(5000)))
QUOTAS = Quotas(running_jobs=3000)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A long queue of few users, with requests of the usual length."""
    if request.param == "sqlite":
        yield _filled(Database(f"sqlite:///{tmp_path_factory.mktemp('queue')}/glora.db"))
        return
    with request.getfixturevalue("postgres_server").fresh_database("queue") as url:
        database = _filled(Database(url))
        yield database
        database.dispose()


def _filled(database: Database) -> Database:
    database.migrate()
    with database.write() as session:
        backbone, now = backbones.request(session, SPEC).key, clock.now(session)
        session.flush()
        session.execute(insert(Job), [_job(number, backbone, now) for number in range(QUEUED + OVER)])
        session.execute(insert(Claim), [{"key": key, "job_id": "j6", "epoch": 1, "claimed_at": EPOCH} for key in CLAIMED])
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        postgres = ["CHECKPOINT", "VACUUM ANALYZE jobs", "VACUUM ANALYZE claims"]  # nothing is visible to all before it is on disk
        for statement in ["ANALYZE"] if connection.dialect.name == "sqlite" else postgres:
            connection.exec_driver_sql(statement)
    return database


def _job(number: int, backbone: str, now: datetime) -> dict[str, Any]:
    """Of six jobs five are queued, some of them held back; two of the others run."""
    state = "queued" if number % 6 else "running" if number in RUNNING else "succeeded"
    waits = {"next_try_at": now + timedelta(hours=1) if number % 14 == 0 else None, "awaited_key": "awaited" if number % 10 == 0 else None}
    facts = {"id": f"j{number}", "name": f"job {number}", "state": state, "backbone_key": backbone, "data": {}}
    asked = {
        "request": {"note": random.Random(number).randbytes(700).hex()},
        "user_name": f"user{number * 7 % 11 % 5}",
        "priority": number % 3,
    }
    moment = {"created_at": EPOCH + timedelta(seconds=number), "lease_expires_at": now + timedelta(hours=1) if state == "running" else None}
    return facts | asked | moment | waits | {"lease_epoch": 1, "inherited": 0, "pause_requested": False}


def _page(session: Session) -> list[Job]:
    return jobs.page(session, state="queued", limit=50)


def test_places_in_a_long_queue_are_those_of_playing_it_out(loaded: Database) -> None:
    with loaded.read() as session:
        queued = list(session.scalars(select(Job).where(Job.state == "queued")))
        now = clock.now(session)
        found = places.waiting(session, QUOTAS, _page(session))
        running = dict.fromkeys((session.get_one(Job, name).user_name for name in map("j{}".format, RUNNING)), 1)
    held = {job.id for job in queued if job.awaited_key or (job.next_try_at and job.next_try_at > now)}
    order = in_order(queued, running, QUOTAS.running_jobs, held)

    assert {job_id: place.position for job_id, place in found.items()} == {job_id: order.index(job_id) + 1 for job_id in found}
    assert {place.of for place in found.values()} == {QUEUED}


@pytest.mark.parametrize("count", [1, 50])
def test_place_is_told_from_the_index_of_the_queue_alone(loaded: Database, count: int) -> None:
    with undone(loaded) as session:
        page = _page(session)[:count]
        with caught(loaded) as statements:
            assert len(places.waiting(session, QUOTAS, page)) == count
            asked = list(statements)
        plans = [(statement, plan_of(session, statement, parameters)) for statement, parameters in asked]

    assert [found for found in plans if whole_tables(found[1], {"jobs"})] == []
    of_queue = [steps for statement, steps in plans if "jobs.priority" in statement]
    assert len(of_queue) == 3, "what is older than all of them, what is younger, and what lies between"
    covering = "USING COVERING INDEX ix_jobs_queue" if loaded.engine.dialect.name == "sqlite" else "Index Only Scan using ix_jobs_queue"
    assert [steps for steps in of_queue if covering not in steps] == []
