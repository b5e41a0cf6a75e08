"""Logs kept with jobs: one per attempt, the last few, and only of whoever has the job."""

import pytest

from services.store import job_logs, jobs
from services.store.database import Database
from services.store.errors import LeaseLost
from services.store.jobs import Lease
from tests.services.store.rows import add_running_job, change_job, contents


def _keep(database: Database, lease: Lease, text: str) -> None:
    with database.write() as session:
        job_logs.keep(session, lease, text, len(text))


def _kept(database: Database, job_id: str) -> list[tuple[int, str]]:
    with database.read() as session:
        return [(row.epoch, row.text) for row in job_logs.of_job(session, job_id)]


def test_later_part_of_a_log_takes_the_place_of_the_earlier_one(database: Database) -> None:
    lease = add_running_job(database)

    _keep(database, lease, "one\n")
    _keep(database, lease, "one\ntwo\n")

    assert _kept(database, lease.job_id) == [(1, "one\ntwo\n")]


def test_log_is_kept_after_the_job_is_over(database: Database) -> None:
    lease = add_running_job(database)
    with jobs.fenced(database, lease) as (session, job):
        jobs.fail(session, job, "diverged", "the loss is not finite")

    _keep(database, lease, "Traceback\n")

    assert _kept(database, lease.job_id) == [(1, "Traceback\n")]


def test_whoever_was_replaced_keeps_no_log(database: Database) -> None:
    lease = add_running_job(database)
    change_job(database, lease.job_id, lease_epoch=2)
    before = contents(database)

    with pytest.raises(LeaseLost):
        _keep(database, lease, "late\n")

    assert contents(database) == before


def test_only_the_last_attempts_are_kept(database: Database) -> None:
    lease = add_running_job(database)
    for epoch in range(1, job_logs.KEPT + 3):
        change_job(database, lease.job_id, lease_epoch=epoch)
        _keep(database, Lease(lease.job_id, lease.owner, epoch), f"{epoch}\n")

    assert [epoch for epoch, _ in _kept(database, lease.job_id)] == [3, 4, 5, 6, 7]
