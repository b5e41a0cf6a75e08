"""Leases: only their holder writes, heartbeats prolong them, and what becomes of a job whose runner ended."""

from datetime import timedelta

import pytest

from services.store import clock, events, jobs
from services.store.database import Database
from services.store.errors import LeaseLost
from services.store.jobs import Lease
from services.store.retries import RetryRules
from tests.services.store.concurrency import Background
from tests.services.store.conftest import Connect
from tests.services.store.rows import (
    EPOCH,
    add_running_job,
    change_job,
    claim,
    contents,
    events_of,
    expire,
    job_of,
    kinds_of,
)

STALE = [
    pytest.param({"lease_epoch": 2}, id="epoch over"),
    pytest.param({"lease_owner": "another"}, id="another owner"),
    pytest.param({"state": "succeeded"}, id="succeeded"),
    pytest.param({"state": "failed"}, id="failed"),
    pytest.param({"state": "cancelled"}, id="cancelled"),
    pytest.param({"state": "queued", "lease_owner": None, "lease_expires_at": None}, id="requeued"),
    pytest.param({"lease_expires_at": EPOCH}, id="run out"),
]
"""What may have become of a job behind its runner's back."""


def test_holder_of_the_lease_writes_in_one_transaction(database: Database) -> None:
    lease = add_running_job(database)

    with jobs.fenced(database, lease) as (session, job):
        job.supernet_key = "supernet"
        events.append(session, job.id, "note", {"n": 1})

    assert job_of(database, lease.job_id).supernet_key == "supernet"
    assert kinds_of(database, lease.job_id)[-1] == "note"


def test_fenced_write_is_undone_when_its_block_raises(database: Database) -> None:
    lease = add_running_job(database)
    before = contents(database)

    with pytest.raises(RuntimeError, match="power cut"), jobs.fenced(database, lease) as (session, job):
        job.supernet_key = "supernet"
        events.append(session, job.id, "note", {})
        raise RuntimeError("power cut")

    assert contents(database) == before


@pytest.mark.parametrize("behind_its_back", STALE)
def test_fence_refuses_whoever_lost_the_job_and_writes_nothing(database: Database, behind_its_back: dict[str, object]) -> None:
    lease = add_running_job(database)
    change_job(database, lease.job_id, **behind_its_back)
    before = contents(database)

    with pytest.raises(LeaseLost, match=lease.job_id), jobs.fenced(database, lease) as (session, job):
        job.name = "stolen"
        events.append(session, job.id, "note", {})

    assert contents(database) == before


def test_fence_refuses_an_epoch_that_is_not_reached_yet(database: Database) -> None:
    lease = add_running_job(database)

    with pytest.raises(LeaseLost), jobs.fenced(database, Lease(lease.job_id, lease.owner, lease.epoch + 1)):
        pass


def test_fence_of_a_job_that_is_not_there_is_a_lost_lease(database: Database) -> None:
    with pytest.raises(LeaseLost, match="j0"), jobs.fenced(database, Lease("j0", "runner", 1)):
        pass


def test_runner_that_was_replaced_cannot_write_and_its_successor_can(database: Database) -> None:
    first = add_running_job(database, "first")
    expire(database, first.job_id)
    second = claim(database, "second")
    assert second is not None

    with pytest.raises(LeaseLost), jobs.fenced(database, first) as (session, job):
        jobs.succeed(session, job, {"by": "first"})
    with jobs.fenced(database, second) as (session, job):
        jobs.succeed(session, job, {"by": "second"})

    assert job_of(database, first.job_id).result == {"by": "second"}


def test_late_write_counts_for_nothing_though_nobody_took_the_job_over(database: Database) -> None:
    lease = add_running_job(database)
    expire(database, lease.job_id)
    before = contents(database)

    with pytest.raises(LeaseLost, match="has run out"), jobs.fenced(database, lease) as (session, job):
        jobs.succeed(session, job, {})

    assert contents(database) == before


def test_cancel_request_waits_for_a_fenced_write_and_sees_it(database: Database, connect: Connect) -> None:
    lease, other = add_running_job(database), connect()

    def cancel() -> str:
        with other.write() as session:
            return jobs.request_cancel(session, lease.job_id).state

    with jobs.fenced(database, lease) as (session, job):
        jobs.release(session, job)
        cancelling = Background(cancel)
        cancelling.give_way()

    assert cancelling.result() == "cancelled"
    assert kinds_of(database, lease.job_id) == ["queued", "started", "requeued", "cancelled"]


def test_heartbeat_prolongs_the_lease(database: Database) -> None:
    lease = add_running_job(database)
    with database.write() as session:
        soon = clock.now(session) + timedelta(seconds=60)
    change_job(database, lease.job_id, lease_expires_at=soon)

    cancel = jobs.renew(database, lease, 3600)

    expires = job_of(database, lease.job_id).lease_expires_at
    assert cancel is False
    assert expires is not None and expires > soon
    assert claim(database, "another") is None


def test_heartbeat_brings_a_cancel_request(database: Database) -> None:
    lease = add_running_job(database)
    with database.write() as session:
        jobs.request_cancel(session, lease.job_id)

    assert jobs.renew(database, lease, 3600) is True


@pytest.mark.parametrize("behind_its_back", STALE)
def test_heartbeat_of_whoever_lost_the_job_is_refused_and_changes_nothing(database: Database, behind_its_back: dict[str, object]) -> None:
    lease = add_running_job(database)
    change_job(database, lease.job_id, **behind_its_back)
    before = contents(database)

    with pytest.raises(LeaseLost):
        jobs.renew(database, lease, 3600)

    assert contents(database) == before


def test_job_of_a_runner_that_stopped_cleanly_is_requeued_without_counting(database: Database) -> None:
    lease = add_running_job(database)

    _runner_ended(database, lease, clean=True, max_attempts=1)

    job = job_of(database, lease.job_id)
    assert (job.state, job.attempts, job.lease_owner, job.lease_expires_at) == ("queued", 0, None, None)
    assert kinds_of(database, lease.job_id) == ["queued", "started", "requeued"]


def test_job_of_a_runner_that_broke_off_is_requeued_and_counted(database: Database) -> None:
    lease = add_running_job(database)

    _runner_ended(database, lease, clean=False, max_attempts=2)

    job = job_of(database, lease.job_id)
    assert (job.state, job.attempts, job.lease_owner) == ("queued", 1, None)
    last = events_of(database, lease.job_id)[-1]
    assert (last.kind, last.data["attempts"], last.data["reason"]) == ("requeued", 1, "runner_lost")


def test_job_whose_runners_broke_off_too_often_fails_as_runner_lost(database: Database) -> None:
    lease = add_running_job(database)
    change_job(database, lease.job_id, attempts=1)

    _runner_ended(database, lease, clean=False, max_attempts=2)

    job = job_of(database, lease.job_id)
    assert (job.state, job.failure_reason, job.lease_owner) == ("failed", "runner_lost", None)
    assert job.failure_message is not None and "status -9" in job.failure_message
    assert kinds_of(database, lease.job_id) == ["queued", "started", "failed"]


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "broken off"])
def test_job_that_was_to_be_cancelled_is_cancelled_when_its_runner_ends(database: Database, clean: bool) -> None:
    lease = add_running_job(database)
    with database.write() as session:
        jobs.request_cancel(session, lease.job_id)

    _runner_ended(database, lease, clean=clean, max_attempts=1)

    job = job_of(database, lease.job_id)
    assert (job.state, job.failure_reason, job.attempts) == ("cancelled", None, 0)
    assert kinds_of(database, lease.job_id)[-2:] == ["cancel_requested", "cancelled"]


@pytest.mark.parametrize(
    "behind_its_back",
    [
        pytest.param({"lease_epoch": 2, "lease_owner": "another"}, id="taken over"),
        pytest.param({"state": "succeeded"}, id="succeeded"),
        pytest.param({"state": "failed"}, id="failed"),
        pytest.param({"state": "cancelled"}, id="cancelled"),
        pytest.param({"state": "queued"}, id="requeued"),
    ],
)
def test_end_of_a_runner_whose_job_moved_on_changes_nothing(database: Database, behind_its_back: dict[str, object]) -> None:
    lease = add_running_job(database)
    change_job(database, lease.job_id, **behind_its_back)
    before = contents(database)

    with pytest.raises(LeaseLost, match=lease.job_id):
        _runner_ended(database, lease, clean=False, max_attempts=1)

    assert contents(database) == before


def test_end_of_a_runner_of_a_job_that_is_not_there_is_a_lost_lease(database: Database) -> None:
    with pytest.raises(LeaseLost, match="j0"):
        _runner_ended(database, Lease("j0", "runner", 1), clean=True, max_attempts=1)


def _runner_ended(database: Database, lease: Lease, *, clean: bool, max_attempts: int) -> None:
    with database.write() as session:
        jobs.runner_ended(session, lease, clean=clean, rules=RetryRules(attempts=max_attempts), status=-9)
