"""Idempotency keys: one job per key and user, for a time, whoever is first."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from services.store import backbones, clock, idempotency, jobs
from services.store.database import Database
from services.store.idempotency import KeyTaken
from services.store.models import IdempotencyKey, Job
from tests.services.store.concurrency import at_once
from tests.services.store.conftest import Connect
from tests.services.store.rows import SPEC, contents


def _submit(database: Database, key: str = "k", user: str = "ada", fingerprint: str = "f" * 64) -> str:
    with database.write() as session:
        backbone = backbones.request(session, SPEC).key
        session.flush()
        job = jobs.create(session, name="toy", request={}, backbone_key=backbone, data={}, user=user)
        idempotency.keep(session, user, key, fingerprint=fingerprint, job_id=job.id, hours=24)
        return job.id


def _found(database: Database, key: str = "k", user: str = "ada") -> str | None:
    with database.read() as session:
        found = idempotency.find(session, user, key)
        return None if found is None else found.job_id


def _expire(database: Database, key: str) -> None:
    with database.write() as session:
        past = clock.now(session) - timedelta(seconds=1)
        session.execute(update(IdempotencyKey).where(IdempotencyKey.key == key).values(expires_at=past))


def test_key_stands_for_the_job_that_came_with_it(database: Database) -> None:
    job_id = _submit(database)

    assert _found(database) == job_id
    assert _found(database, key="other") is None


def test_key_is_its_users_own(database: Database) -> None:
    first, second = _submit(database, user="ada"), _submit(database, user="bob")

    assert (_found(database, user="ada"), _found(database, user="bob")) == (first, second)


def test_second_job_under_a_key_is_refused_and_leaves_nothing(database: Database) -> None:
    _submit(database)
    before = contents(database)

    with pytest.raises(KeyTaken):
        _submit(database)

    assert contents(database) == before


def test_key_that_was_kept_for_its_time_is_free_again_and_takes_others_with_it(database: Database) -> None:
    _submit(database)
    _submit(database, "older")
    _expire(database, "k")
    _expire(database, "older")

    assert _found(database) is None
    assert _submit(database) == _found(database)
    with database.read() as session:
        assert list(session.scalars(select(IdempotencyKey.key))) == ["k"]


@pytest.mark.parametrize("round_", range(3))
def test_of_many_submissions_at_once_one_becomes_a_job(database: Database, connect: Connect, round_: int) -> None:
    databases = [connect() for _ in range(6)]

    def submit(one: Database) -> bool:
        try:
            _submit(one)
        except KeyTaken:
            return False
        return True

    won = at_once(*(lambda one=one: submit(one) for one in databases))

    with database.read() as session:
        assert (sum(won), session.scalar(select(func.count()).select_from(Job))) == (1, 1)
