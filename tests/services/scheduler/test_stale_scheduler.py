"""A scheduler that was stopped past its lease and goes on: it writes nothing, on every database."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from services import processes
from services.store import jobs
from services.store.database import Database
from services.store.jobs import Lease
from services.store.models import Backbone
from tests.services.store.conftest import backend, connect, migrated_url, postgres_server
from tests.services.store.rows import add_job, claim, contents, expire, job_of

__all__ = ["backend", "connect", "migrated_url", "postgres_server"]

ROOT = Path(__file__).parents[3]


@pytest.fixture
def stale(migrated_url: str, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A scheduler process of its own."""
    process = _start(migrated_url, tmp_path, lease_seconds=3600)
    yield process
    process.send_signal(signal.SIGCONT)
    processes.stop(process)


@pytest.mark.parametrize(("start_seconds", "attempts"), [(60, {0}), (1, {1, 2, 3})], ids=["in time", "too long"])
def test_runner_that_loads_for_longer_than_a_lease_keeps_its_job_for_a_while(
    migrated_url: str, connect: Callable[[], Database], tmp_path: Path, start_seconds: float, attempts: set[int]
) -> None:
    database = connect()
    job_id = _add_described_job(database)
    process = _start(migrated_url, tmp_path, lease_seconds=1, start_seconds=start_seconds)
    try:
        _until(lambda: job_of(database, job_id).lease_epoch == 1)
        time.sleep(4)
        assert job_of(database, job_id).attempts in attempts
    finally:
        processes.stop(process)


def test_stopped_scheduler_that_goes_on_past_its_lease_writes_nothing(
    stale: "subprocess.Popen[bytes]", connect: Callable[[], Database], tmp_path: Path
) -> None:
    database = connect()
    job_id = _add_described_job(database)
    _until(lambda: job_of(database, job_id).state == "running" and _child_of(stale.pid) is not None)
    runner = _child_of(stale.pid)
    assert runner is not None
    (tmp_path / "work" / f"{job_id}-2").mkdir(parents=True)  # the successor's, with the same home
    stale.send_signal(signal.SIGSTOP)

    expire(database, job_id)
    successor = claim(database, "successor")
    os.kill(runner, signal.SIGKILL)
    before = contents(database)
    stale.send_signal(signal.SIGCONT)
    log = tmp_path / "scheduler.log"
    _until(lambda: "runner ended with status -9" in log.read_text())
    time.sleep(0.3)

    assert successor == Lease(job_id, "successor", 2)
    assert contents(database) == before
    assert (tmp_path / "work" / f"{job_id}-2").exists()
    with jobs.fenced(database, successor) as (session, job):
        jobs.succeed(session, job, {})
    assert job_of(database, job_id).state == "succeeded"


def test_scheduler_whose_lease_ran_out_leaves_its_job_to_whoever_claims_it(
    stale: "subprocess.Popen[bytes]", connect: Callable[[], Database]
) -> None:
    database = connect()
    job_id = _add_described_job(database)
    _until(lambda: job_of(database, job_id).state == "running" and _child_of(stale.pid) is not None)
    runner = _child_of(stale.pid)
    assert runner is not None
    stale.send_signal(signal.SIGSTOP)

    expire(database, job_id)
    os.kill(runner, signal.SIGKILL)
    stale.send_signal(signal.SIGCONT)
    _until(lambda: job_of(database, job_id).lease_epoch == 2)

    assert (job_of(database, job_id).state, job_of(database, job_id).attempts) == ("running", 1)


def _start(url: str, home: Path, lease_seconds: float, start_seconds: float = 3600) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.services.scheduler.scheduling", url, str(home), str(lease_seconds), str(start_seconds)]
    return processes.start(command, log=home / "scheduler.log", env={"PYTHONPATH": str(ROOT)})


def _add_described_job(database: Database) -> str:
    """A queued job whose backbone nobody has to describe any more."""
    job_id = add_job(database)
    with database.write() as session:
        session.execute(update(Backbone).values(state="ready"))
    return job_id


def _child_of(pid: int) -> int | None:
    """The scheduler's only child, if it has started one."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(found[0]) if found else None


def _until(condition: Callable[[], bool], patience_seconds: float = 30) -> None:
    deadline = time.monotonic() + patience_seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
