"""The queue: priorities, fair shares, quotas, run time, and what a waiting job is told."""

import time
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from services.scheduler.failures import classify
from services.store import clock, jobs, lifecycle, places, queue, schedulers
from services.store import database as database_module
from services.store.database import Database
from services.store.errors import LeaseLost, QuotaExceeded
from services.store.jobs import Lease
from services.store.models import Job
from services.store.places import Waiting
from services.store.queue import Quotas
from services.store.retries import RetryRules
from tests.services.store.concurrency import at_once
from tests.services.store.conftest import Connect
from tests.services.store.rows import EPOCH, add_job, artifact, change_job, claim, contents, events_of, expire, job_of

ONE_EACH = Quotas(running_jobs=1)


def _add(database: Database, user: str, seconds: int, priority: int = 0) -> str:
    """A queued job of a user, so old."""
    return add_job(database, f"{user} {seconds}", user_name=user, priority=priority, created_at=EPOCH + timedelta(seconds=seconds))


def _claim(database: Database, quotas: Quotas = jobs.UNLIMITED) -> str | None:
    """The name of the job that is claimed."""
    with database.write() as session:
        lease = jobs.claim(session, "runner", 3600, RetryRules(), quotas)
        return None if lease is None else jobs.get(session, lease.job_id).name


def _claim_all(database: Database, quotas: Quotas = jobs.UNLIMITED) -> list[str]:
    names = []
    while (name := _claim(database, quotas)) is not None:
        names.append(name)
    return names


def _waiting(database: Database, quotas: Quotas = jobs.UNLIMITED) -> dict[str, Waiting]:
    """What is told of every waiting job, by its name."""
    with database.read() as session:
        rows = session.scalars(select(Job)).all()
        return {jobs.get(session, job_id).name: place for job_id, place in places.waiting(session, quotas, rows).items()}


def _order(database: Database, quotas: Quotas = jobs.UNLIMITED) -> list[str]:
    return sorted(found := _waiting(database, quotas), key=lambda name: found[name].position)


def _beat(database: Database, slots: int) -> None:
    with database.write() as session:
        schedulers.beat(session, f"scheduler {slots}", slots, 60)


def test_higher_priority_comes_first_whoever_is_older_or_has_more(database: Database) -> None:
    _add(database, "ada", 0)
    _add(database, "ada", 1, priority=5)
    _add(database, "bob", 2, priority=-5)
    _add(database, "ada", 3, priority=5)

    assert _claim_all(database) == ["ada 1", "ada 3", "ada 0", "bob 2"]


def test_users_with_less_running_come_first_and_then_the_oldest(database: Database) -> None:
    for seconds in range(3):
        _add(database, "ada", seconds)
    for seconds in range(3, 5):
        _add(database, "bob", seconds)
    _add(database, "eve", 5)

    assert _claim_all(database) == ["ada 0", "bob 3", "eve 5", "ada 1", "bob 4", "ada 2"]


def test_jobs_that_are_over_or_lost_their_runner_count_for_nobody(database: Database) -> None:
    done, lost = _add(database, "ada", 0), _add(database, "ada", 1)
    assert _claim_all(database) == ["ada 0", "ada 1"]
    change_job(database, done, state="succeeded", lease_expires_at=None)
    expire(database, lost)
    change_job(database, lost, attempts=0, cancel_requested=True)
    _add(database, "ada", 2)
    _add(database, "bob", 3)

    assert _claim_all(database) == ["ada 2", "bob 3"]


def test_user_runs_no_more_than_the_quota(database: Database) -> None:
    first = _add(database, "ada", 0)
    _add(database, "ada", 1, priority=9)
    _add(database, "bob", 2)

    assert _claim_all(database, ONE_EACH) == ["ada 1", "bob 2"]
    assert job_of(database, first).state == "queued"


@pytest.mark.parametrize("round_", range(3))
def test_many_schedulers_at_once_keep_to_the_quota(database: Database, connect: Connect, round_: int) -> None:
    for seconds in range(8):
        _add(database, ["ada", "bob"][seconds % 2], seconds)
    schedulers_ = [connect() for _ in range(6)]

    claimed = at_once(*(lambda one=one: _claim(one, Quotas(running_jobs=2)) for one in schedulers_))

    assert sorted(name.split()[0] for name in claimed if name) == ["ada", "ada", "bob", "bob"]


def test_order_that_is_told_is_the_order_of_claims(database: Database) -> None:
    for number in range(12):
        _add(database, f"user{number * 7 % 4 % 3}", number, priority=number % 2)
    _claim(database)
    told = _order(database)

    assert told == _claim_all(database)


def test_jobs_that_are_passed_over_are_told_last_and_why(database: Database) -> None:
    _add(database, "ada", 0)
    _claim(database)
    retried = _add(database, "bob", 1)
    with database.read() as session:
        later = clock.now(session) + timedelta(seconds=40)
    change_job(database, retried, next_try_at=later, retry={"reason": "worker_lost"})
    for seconds in (2, 3):
        _add(database, "ada", seconds)
    _add(database, "bob", 4)
    _beat(database, 5)

    found = _waiting(database, ONE_EACH)

    assert _order(database, ONE_EACH) == ["bob 4", "ada 2", "ada 3", "bob 1"]
    assert found["bob 4"] == Waiting(1, 4, "next", "a scheduler takes it in a moment")
    assert found["ada 2"] == Waiting(2, 4, "quota", "ada runs 1 job, as many as a user may")
    assert (found["bob 1"].reason, found["bob 1"].message[:17]) == ("retry", "tried again in 40")
    assert found["bob 1"].message.endswith("after worker_lost")


def test_waiting_job_is_told_whether_schedulers_are_there_and_busy(database: Database) -> None:
    _add(database, "ada", 0)
    _add(database, "ada", 1)
    assert {place.reason for place in _waiting(database).values()} == {"no_scheduler"}

    _beat(database, 1)
    before = _waiting(database)
    _claim(database)
    after = _waiting(database)
    _add(database, "ada", 2)
    with database.write() as session:
        schedulers.leave(session, "scheduler 1")

    assert (before["ada 0"].reason, before["ada 1"]) == ("next", Waiting(2, 2, "jobs_ahead", "1 job ahead of it"))
    assert after["ada 1"] == Waiting(1, 1, "schedulers_busy", "the schedulers run 1 job, as many as they may")
    assert _waiting(database)["ada 2"].reason == "no_scheduler"


def test_scheduler_that_is_not_heard_of_any_more_is_not_at_work(database: Database) -> None:
    with database.write() as session:
        schedulers.beat(session, "gone", 3, -1)
        schedulers.beat(session, "here", 2, 60)
        schedulers.beat(session, "here", 4, 60)

    with database.read() as session:
        assert schedulers.alive(session) == (1, 4)


def test_queue_without_jobs_tells_nothing(database: Database) -> None:
    assert _waiting(database) == {}


def _check(database: Database, quotas: Quotas, user: str = "ada") -> None:
    with database.write() as session:
        queue.check_quotas(session, user, quotas)


def test_user_with_a_full_queue_may_not_submit_and_others_may(database: Database) -> None:
    _add(database, "ada", 0)
    _check(database, Quotas(queued_jobs=2))
    _add(database, "ada", 1)

    with pytest.raises(QuotaExceeded, match="2 queued jobs, of 2") as refusal:
        _check(database, Quotas(queued_jobs=2))
    _check(database, Quotas(queued_jobs=2), "bob")

    assert (refusal.value.quota, refusal.value.limit, refusal.value.used) == ("queued_jobs", 2, 2)


def test_paused_job_keeps_its_place_in_its_users_quota(database: Database) -> None:
    job_id = _add(database, "ada", 0)
    with database.write() as session:
        lifecycle.request_pause(session, job_id)

    with pytest.raises(QuotaExceeded, match="1 queued jobs, of 1"):
        _check(database, Quotas(queued_jobs=1))


def test_equal_files_of_a_users_jobs_count_once(database: Database) -> None:
    first, second, others = _add(database, "ada", 0), _add(database, "ada", 1), _add(database, "bob", 2)
    with database.write() as session:
        for name, job_id, digest, size in [("a", first, "1", 40), ("b", second, "1", 40), ("c", second, "2", 50), ("d", others, "3", 1000)]:
            row = artifact(name, job_id)
            row.sha256, row.size = digest * 64, size
            session.add(row)

    with database.read() as session:
        assert queue.stored_bytes(session, "ada") == 90
    _check(database, Quotas(stored_bytes=91))
    with pytest.raises(QuotaExceeded, match="90 stored bytes, of 90"):
        _check(database, Quotas(stored_bytes=90))


def test_submissions_at_once_do_not_pass_a_quota_together(database: Database, connect: Connect) -> None:
    key = job_of(database, _add(database, "bob", 0)).backbone_key
    databases = [connect() for _ in range(6)]

    def submit(one: Database) -> bool:
        try:
            with one.write() as session:
                queue.check_quotas(session, "ada", Quotas(queued_jobs=2))
                jobs.create(session, name="toy", request={}, backbone_key=key, data={}, user="ada")
        except QuotaExceeded:
            return False
        return True

    assert sum(at_once(*(lambda one=one: submit(one) for one in databases))) == 2


def _running_for(database: Database, hours: float | None) -> Lease:
    job_id = add_job(database, request={"budget": 7, "max_hours": hours})
    lease = claim(database)
    assert lease is not None and lease.job_id == job_id
    return lease


def _renew_after(database: Database, lease: Lease, seconds: float) -> bool:
    """Renew a lease of an hour as if its last renewal had been so long ago."""
    with database.write() as session:
        last = clock.now(session) - timedelta(seconds=seconds)
    change_job(database, lease.job_id, lease_expires_at=last + timedelta(hours=1))
    return jobs.renew(database, lease, 3600)


def test_run_time_is_counted_without_the_time_in_the_queue(database: Database) -> None:
    lease = _running_for(database, None)
    _renew_after(database, lease, 100)
    with jobs.fenced(database, lease) as (session, job):
        jobs.release(session, job)
    time.sleep(0.2)
    again = claim(database)
    assert again is not None
    _renew_after(database, again, 20)

    assert 120 <= job_of(database, lease.job_id).run_seconds < 121


def test_job_that_has_run_for_as_long_as_it_may_fails_for_that(database: Database) -> None:
    lease = _running_for(database, 0.5)
    assert _renew_after(database, lease, 1000) is False

    with pytest.raises(LeaseLost, match="as long as it may"):
        _renew_after(database, lease, 1000)

    job = job_of(database, lease.job_id)
    assert (job.state, job.failure_reason, job.lease_owner) == ("failed", "time_exceeded", None)
    assert job.failure_message == "it has run for the 0.5 hours that its request allows"
    assert events_of(database, lease.job_id)[-1].data["reason"] == "time_exceeded"
    before = contents(database)
    with pytest.raises(LeaseLost):
        jobs.renew(database, lease, 3600)
    assert contents(database) == before


def test_cancelled_job_is_cancelled_even_when_its_time_is_over(database: Database) -> None:
    lease = _running_for(database, 0.1)
    with database.write() as session:
        jobs.request_cancel(session, lease.job_id)

    assert _renew_after(database, lease, 1000) is True
    assert job_of(database, lease.job_id).state == "running"


@pytest.mark.parametrize("backend", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=False)
def test_runner_that_is_stopped_in_a_transaction_loses_its_job_all_the_same(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(database_module, "_IDLE_MS", 500)
    stopped, other = Database(migrated_url), Database(migrated_url)
    job_id = add_job(other)
    with other.write() as session:
        lease = jobs.claim(session, "stopped", 1, RetryRules(first_seconds=0))
    assert lease is not None

    with pytest.raises(DBAPIError) as cut, jobs.fenced(stopped, lease) as (session, job):
        job.name = "late"
        session.flush()
        time.sleep(2)
        with other.write() as others:
            again = jobs.claim(others, "another", 60, RetryRules(first_seconds=0))
        job.phase = "train"

    assert again is not None and again.epoch == 2
    assert (job_of(other, job_id).name, job_of(other, job_id).phase) == ("toy", None)
    assert classify(cut.value) == "database_unavailable"
    stopped.dispose()
    other.dispose()
