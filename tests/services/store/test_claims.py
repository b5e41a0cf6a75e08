"""Claiming: which job comes next, one owner at a time, and a bound on attempts."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from services.store import clock, jobs
from services.store.database import Database
from services.store.jobs import Lease
from services.store.retries import RetryRules
from tests.services.store.concurrency import Background, at_once
from tests.services.store.conftest import Connect
from tests.services.store.rows import (
    EPOCH,
    add_job,
    add_running_job,
    change_job,
    claim,
    contents,
    events_of,
    expire,
    job_of,
    kinds_of,
)


def test_jobs_are_claimed_oldest_first(database: Database) -> None:
    middle = add_job(database, created_at=EPOCH + timedelta(seconds=1))
    newest = add_job(database, created_at=EPOCH + timedelta(seconds=2))
    oldest = add_job(database, created_at=EPOCH)

    claimed = [_claimed(database) for _ in range(3)]

    assert claimed == [oldest, middle, newest]


def test_jobs_of_one_moment_are_claimed_in_the_order_of_their_ids(database: Database) -> None:
    made = [add_job(database, created_at=EPOCH) for _ in range(5)]

    claimed = [_claimed(database) for _ in made]

    assert claimed == sorted(made)


def test_older_job_whose_lease_ran_out_comes_before_a_younger_queued_one(database: Database) -> None:
    older = add_running_job(database).job_id
    add_job(database)
    expire(database, older)

    assert _claimed(database) == older


def test_empty_queue_gives_nothing(database: Database) -> None:
    assert claim(database) is None


@pytest.mark.parametrize("state", sorted(jobs.FINAL))
def test_finished_job_is_never_claimed(database: Database, state: str) -> None:
    add_job(database, state=state, lease_expires_at=EPOCH)
    before = contents(database)

    assert claim(database) is None
    assert contents(database) == before


def test_job_under_a_valid_lease_is_not_claimed(database: Database) -> None:
    add_running_job(database)
    before = contents(database)

    assert claim(database, "another") is None
    assert contents(database) == before


def test_claimed_job_runs_under_a_lease_of_the_length_asked_for(database: Database) -> None:
    job_id, before = add_job(database), datetime.now(UTC)

    with database.write() as session:
        lease = jobs.claim(session, "runner", 30, RetryRules())

    job = job_of(database, job_id)
    assert lease == Lease(job_id, "runner", 1)
    assert (job.state, job.lease_owner, job.lease_epoch, job.attempts) == ("running", "runner", 1, 0)
    assert job.started_at is not None and job.lease_expires_at is not None
    assert timedelta(seconds=29) < job.lease_expires_at - job.started_at < timedelta(seconds=31)
    assert before <= job.started_at <= datetime.now(UTC)


def test_first_claim_starts_a_job_and_the_next_one_resumes_it(database: Database) -> None:
    lease = add_running_job(database)
    with jobs.fenced(database, lease) as (session, job):
        jobs.release(session, job)
        started_at = job.started_at

    again = claim(database, "another")

    assert again == Lease(lease.job_id, "another", 2)
    assert job_of(database, lease.job_id).started_at == started_at
    events = [(event.kind, event.data) for event in events_of(database, lease.job_id)]
    assert events[1:] == [("started", {"epoch": 1}), ("requeued", {"attempts": 0}), ("resumed", {"epoch": 2})]


def test_job_whose_lease_ran_out_is_claimed_under_a_higher_epoch(database: Database) -> None:
    lease = add_running_job(database)
    expire(database, lease.job_id)

    again = claim(database, "another")

    assert again == Lease(lease.job_id, "another", 2)
    assert job_of(database, lease.job_id).lease_owner == "another"
    assert kinds_of(database, lease.job_id) == ["queued", "started", "requeued", "resumed"]


def test_every_lease_that_runs_out_counts_as_an_attempt(database: Database) -> None:
    job_id = add_running_job(database).job_id

    expire(database, job_id)
    claim(database, max_attempts=3)
    first = job_of(database, job_id).attempts
    expire(database, job_id)
    claim(database, max_attempts=3)

    assert (first, job_of(database, job_id).attempts) == (1, 2)


def test_job_that_had_all_its_attempts_fails_as_runner_lost(database: Database) -> None:
    job_id = add_running_job(database).job_id
    change_job(database, job_id, attempts=2)
    expire(database, job_id)

    lease = claim(database, max_attempts=3)

    job = job_of(database, job_id)
    assert lease is None
    assert (job.state, job.failure_reason, job.attempts) == ("failed", "runner_lost", 3)
    assert (job.lease_owner, job.lease_expires_at, job.lease_epoch) == (None, None, 1)
    assert job.finished_at is not None
    assert kinds_of(database, job_id) == ["queued", "started", "failed"]


def test_job_without_attempts_left_does_not_hide_the_job_behind_it(database: Database) -> None:
    exhausted = add_running_job(database).job_id
    waiting = add_job(database)
    expire(database, exhausted)

    lease = claim(database, max_attempts=1)

    assert job_of(database, exhausted).state == "failed"
    assert lease is not None and lease.job_id == waiting


def test_many_claimers_at_once_get_every_job_exactly_once(database: Database, connect: Connect) -> None:
    made = [add_job(database) for _ in range(40)]
    claimers = [connect() for _ in range(6)]

    leases = at_once(*(lambda number=number: _claim_all(claimers[number], f"claimer {number}") for number in range(6)))

    claimed = [lease.job_id for found in leases for lease in found]
    assert sorted(claimed) == sorted(made)
    assert {job_id: job_of(database, job_id).lease_owner for job_id in made} == {
        lease.job_id: lease.owner for found in leases for lease in found
    }


@pytest.mark.parametrize("round_", range(5))
def test_one_job_whose_lease_ran_out_goes_to_one_of_many_claimers(database: Database, connect: Connect, round_: int) -> None:
    job_id = add_running_job(database).job_id
    expire(database, job_id)
    claimers = [connect() for _ in range(6)]

    leases = at_once(*(lambda number=number: claim(claimers[number], f"claimer {number}") for number in range(6)))

    winners = [lease for lease in leases if lease is not None]
    job = job_of(database, job_id)
    assert [(lease.owner, lease.epoch) for lease in winners] == [(job.lease_owner, 2)]
    assert job.attempts == 1


def test_claim_does_not_overtake_a_renewal_that_is_under_way(database: Database, connect: Connect) -> None:
    lease, other = add_running_job(database), connect()
    with database.write() as session:
        soon = clock.now(session) + timedelta(seconds=0.3)
    change_job(database, lease.job_id, lease_expires_at=soon)

    with jobs.fenced(database, lease) as (session, job):
        job.lease_expires_at = soon + timedelta(hours=1)
        session.flush()
        time.sleep(0.4)
        overtaking = Background(lambda: claim(other, "another"))
        overtaking.give_way()

    assert overtaking.result() is None
    assert job_of(database, lease.job_id).lease_owner == lease.owner


def _claimed(database: Database) -> str | None:
    lease = claim(database)
    return None if lease is None else lease.job_id


def _claim_all(database: Database, owner: str) -> list[Lease]:
    leases = []
    while (lease := claim(database, owner)) is not None:
        leases.append(lease)
    return leases
