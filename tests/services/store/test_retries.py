"""Retries: what is worth another attempt, how many there are, and when the next one is."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.settings import Settings
from services.store import clock, jobs, study_leases
from services.store.database import Database
from services.store.retries import LOST, OUTAGES, RetryRules
from tests.services.store.rows import add_running_job, change_job, claim, events_of, expire, job_of, kinds_of
from tests.services.store.study_rows import driven

RULES = RetryRules(attempts=3, outage_attempts=5, first_seconds=10, longest_seconds=60)
FOR_GOOD = ["data_invalid", "diverged", "not_learning", "out_of_memory", "budget_infeasible", "resources_unavailable", "internal_error"]


def _fail(database: Database, reason: str, rules: RetryRules = RULES) -> str:
    """Fail an attempt of a new job; returns its id."""
    lease = add_running_job(database)
    with jobs.fenced(database, lease) as (session, job):
        jobs.attempt_failed(session, job, rules, reason, "it broke", "Traceback …")
    return lease.job_id


@pytest.mark.parametrize("reason", sorted(LOST | OUTAGES))
def test_what_may_pass_is_tried_again_after_a_wait(database: Database, reason: str) -> None:
    with database.read() as session:
        before = clock.now(session)
    job = job_of(database, _fail(database, reason))

    assert (job.state, job.attempts, job.failure_reason, job.lease_owner) == ("queued", 1, None, None)
    told = {"reason": reason, "message": "it broke", "attempt": 2, "of": RULES.allowed(reason), "counts": {RULES.kind(reason): 1}}
    assert job.retry is not None
    began = job.retry.pop("outage_since", None)
    assert job.retry == told
    assert (began is not None) == (reason in OUTAGES)
    assert job.next_try_at is not None
    assert timedelta(seconds=5) <= job.next_try_at - before < timedelta(seconds=20)
    assert claim(database) is None


@pytest.mark.parametrize("reason", FOR_GOOD)
def test_what_would_come_out_the_same_is_not_tried_again(database: Database, reason: str) -> None:
    job = job_of(database, _fail(database, reason))

    assert (job.state, job.failure_reason, job.failure_message, job.failure_detail) == ("failed", reason, "it broke", "Traceback …")


def test_attempts_that_an_outage_ended_do_not_count_against_a_lost_worker(database: Database) -> None:
    job_id = _fail(database, "artifact_unavailable")
    for reason in ("cluster_unavailable", "worker_lost", "database_unavailable", "runner_lost", "node_lost"):
        change_job(database, job_id, next_try_at=None)
        lease = claim(database)
        assert lease is not None
        with jobs.fenced(database, lease) as (session, job):
            again = jobs.attempt_failed(session, job, RULES, reason, "it broke")
        assert again == (reason != "node_lost"), "the third that was lost"

    job = job_of(database, job_id)
    assert (job.state, job.attempts) == ("failed", 6)
    assert job.retry is not None and job.retry["counts"] == {"outage": 3, "lost": 2}


def test_an_outage_is_outlasted_for_hours_and_not_for_ever() -> None:
    rules, began = RetryRules(outage_attempts=1000, outage_seconds=3600), datetime(2026, 1, 1, tzinfo=UTC)
    told, again = rules.after(None, 0, "artifact_unavailable", began)
    assert again
    told, again = rules.after(told, 1, "worker_lost", began + timedelta(minutes=30))
    assert again
    told, again = rules.after(told, 2, "cluster_unavailable", began + timedelta(minutes=59))
    assert again
    _, again = rules.after(told, 3, "database_unavailable", began + timedelta(minutes=60))
    assert not again
    _, again = rules.after(told, 0, "database_unavailable", began + timedelta(minutes=60))
    assert again, "progress has been made since"


def test_a_study_is_not_failed_by_its_first_loss_after_an_outage(database: Database) -> None:
    study_id = driven(database).study_id
    for reason in ("cluster_unavailable", "cluster_unavailable", "cluster_unavailable", "worker_lost"):
        with database.write() as session:
            study = study_leases.locked(session, study_id)
            study_leases.attempt_failed(session, study, RULES, reason, "it broke")
            assert study.state == "queued"


def test_a_row_of_an_older_release_goes_on_counting_where_it_was(database: Database) -> None:
    job_id = _fail(database, "worker_lost")
    change_job(database, job_id, next_try_at=None, attempts=2, retry={"reason": "worker_lost", "message": "", "attempt": 3, "of": 3})
    lease = claim(database)
    assert lease is not None
    with jobs.fenced(database, lease) as (session, job):
        assert not jobs.attempt_failed(session, job, RULES, "worker_lost", "it broke")


def test_attempts_are_bounded_and_the_last_one_says_how_many_there_were(database: Database) -> None:
    job_id = _fail(database, "worker_lost")
    for _ in range(2):
        change_job(database, job_id, next_try_at=None)
        lease = claim(database)
        assert lease is not None
        with jobs.fenced(database, lease) as (session, job):
            jobs.attempt_failed(session, job, RULES, "worker_lost", "it broke")

    job = job_of(database, job_id)
    assert (job.state, job.attempts) == ("failed", 3)
    assert job.failure_message == "it broke, in 3 attempts in a row without progress between them"
    assert kinds_of(database, job_id) == ["queued", "started", "requeued", "resumed", "requeued", "resumed", "failed"]


def test_waiting_job_is_claimed_once_its_time_has_come(database: Database) -> None:
    job_id = _fail(database, "worker_lost")
    with database.read() as session:
        change_job(database, job_id, next_try_at=clock.now(session) - timedelta(seconds=1))

    lease = claim(database)

    assert lease is not None and lease.epoch == 2
    assert job_of(database, job_id).next_try_at is None


def test_wait_after_a_lost_lease_counts_from_when_it_ran_out(database: Database) -> None:
    job_id = add_running_job(database).job_id
    change_job(database, job_id, attempts=4)
    expire(database, job_id)
    ran_out = job_of(database, job_id).lease_expires_at

    assert claim(database, max_attempts=9) is None

    job = job_of(database, job_id)
    assert ran_out is not None
    assert job.next_try_at == ran_out + timedelta(seconds=RetryRules().wait_seconds(job_id, 5))


def test_why_a_job_waits_is_told_by_its_events(database: Database) -> None:
    told = events_of(database, _fail(database, "worker_lost"))[-1]

    assert told.kind == "requeued"
    assert {name: told.data[name] for name in ("attempts", "reason", "message")} == {
        "attempts": 1,
        "reason": "worker_lost",
        "message": "it broke",
    }
    assert 5 <= told.data["wait_seconds"] <= 10


@given(job_id=st.text(max_size=12), failed=st.integers(1, 10_000))
def test_wait_is_the_same_for_the_same_attempt_and_within_its_bounds(job_id: str, failed: int) -> None:
    wait = RULES.wait_seconds(job_id, failed)

    longest = min(60.0, 10.0 * 2.0 ** min(failed - 1, 60))
    assert wait == RULES.wait_seconds(job_id, failed)
    assert longest / 2 <= wait <= longest


def test_jobs_that_failed_at_the_same_moment_come_back_at_different_ones() -> None:
    waits = {round(RULES.wait_seconds(f"j{number}", 1), 3) for number in range(100)}

    assert len(waits) > 90
    assert max(waits) - min(waits) > 4


def test_rules_are_settings() -> None:
    settings = Settings(max_attempts=2, max_outage_attempts=4, retry_seconds=8, retry_longest_seconds=9)

    assert RetryRules.of(settings) == RetryRules(attempts=2, outage_attempts=4, first_seconds=8, longest_seconds=9)
