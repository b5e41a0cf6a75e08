"""Pausing and resuming jobs: at once where nobody runs them, through the runner where somebody does."""

import pytest

from services.store import jobs, lifecycle
from services.store.database import Database
from services.store.errors import NotFound, WrongState
from services.store.retries import RetryRules
from tests.services.store.rows import add_job, add_running_job, change_job, claim, expire, job_of, kinds_of


def pause(database: Database, job_id: str) -> str:
    with database.write() as session:
        return lifecycle.request_pause(session, job_id).state


def resume(database: Database, job_id: str) -> str:
    with database.write() as session:
        return lifecycle.resume(session, job_id).state


def test_queued_job_is_paused_at_once_and_claimed_only_when_resumed(database: Database) -> None:
    job_id = add_job(database)

    assert pause(database, job_id) == "paused"
    assert claim(database) is None
    assert resume(database, job_id) == "queued"
    assert claim(database).job_id == job_id
    assert kinds_of(database, job_id) == ["queued", "paused", "resume_requested", "started"]


def test_running_job_is_asked_once_and_paused_by_its_runner(database: Database) -> None:
    lease = add_running_job(database)

    assert [pause(database, lease.job_id) for _ in range(2)] == ["running", "running"]
    assert lifecycle.pause_requested(database, lease.job_id)
    with jobs.fenced(database, lease) as (session, job):
        jobs.paused(session, job)

    job = job_of(database, lease.job_id)
    assert (job.state, job.pause_requested, job.lease_owner, job.lease_expires_at) == ("paused", False, None, None)
    assert kinds_of(database, lease.job_id) == ["queued", "started", "pause_requested", "paused"]
    with pytest.raises(jobs.LeaseLost), jobs.fenced(database, lease):
        pass


def test_pending_pause_can_be_withdrawn(database: Database) -> None:
    lease = add_running_job(database)
    pause(database, lease.job_id)

    assert resume(database, lease.job_id) == "running"
    assert not lifecycle.pause_requested(database, lease.job_id)


def test_job_whose_runner_dies_while_pausing_is_paused(database: Database) -> None:
    lease = add_running_job(database)
    pause(database, lease.job_id)
    with database.write() as session:
        jobs.runner_ended(session, lease, clean=False, rules=RetryRules(), status=1)
    other = add_running_job(database)
    pause(database, other.job_id)
    expire(database, other.job_id)

    assert claim(database) is None
    assert [job_of(database, job).state for job in (lease.job_id, other.job_id)] == ["paused", "paused"]


def test_paused_job_can_be_cancelled_and_a_cancelling_one_cannot_be_paused(database: Database) -> None:
    paused = add_job(database)
    pause(database, paused)
    with database.write() as session:
        jobs.request_cancel(session, paused)
    running = add_running_job(database)
    with database.write() as session:
        jobs.request_cancel(session, running.job_id)

    assert job_of(database, paused).state == "cancelled"
    with pytest.raises(WrongState, match="is being cancelled"):
        pause(database, running.job_id)


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_job_that_is_over_can_be_neither_paused_nor_resumed(state: str, database: Database) -> None:
    job_id = add_job(database)
    change_job(database, job_id, state=state)

    with pytest.raises(WrongState) as refusal:
        pause(database, job_id)
    assert (refusal.value.state, refusal.value.accepted) == (state, ("queued", "running"))
    with pytest.raises(WrongState) as refusal:
        resume(database, job_id)
    assert (refusal.value.state, refusal.value.accepted) == (state, ("paused",))


def test_unknown_job_can_be_neither_paused_nor_resumed(database: Database) -> None:
    for ask in (pause, resume):
        with pytest.raises(NotFound):
            ask(database, "j0")


def test_job_that_is_to_be_cancelled_while_it_pauses_is_cancelled(database: Database) -> None:
    lease = add_running_job(database)
    pause(database, lease.job_id)
    with database.write() as session:
        jobs.request_cancel(session, lease.job_id)

    with jobs.fenced(database, lease) as (session, job):
        jobs.stopped(session, job)

    assert job_of(database, lease.job_id).state == "cancelled"
