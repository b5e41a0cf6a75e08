"""Training checkpoints: of a job that is over, of a supernet that is stored, and those that another job may go on from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.scheduler import leftovers
from services.store import claims, jobs, lifecycle
from services.store.blobs import BlobStore, training_name
from services.store.database import Database
from services.store.models import Claim
from tests.services.store.conftest import backend, connect, migrated_url, postgres_server
from tests.services.store.rows import add_job, add_running_job, add_supernet, change_job

__all__ = ["backend", "connect", "migrated_url", "postgres_server"]

KEY = "a1" * 14


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "artifacts"))


def _train(blobs: BlobStore, *names: str) -> None:
    filesystem, folder = blobs.training_folder()
    for name in names:
        filesystem.makedirs(f"{folder}/{name}/checkpoint_1")
        filesystem.pipe_file(f"{folder}/{name}/checkpoint_1/state.pt", b"weights")


def _claimed(database: Database) -> jobs.Lease:
    """A job that trains the supernet."""
    lease = add_running_job(database)
    with jobs.fenced(database, lease) as (session, _):
        claims.take(session, lease, [KEY])
    return lease


@pytest.mark.parametrize("waiter", ["nobody", "runner", "queue"])
def test_checkpoints_of_a_job_that_is_over_stay_for_whoever_waits_for_them(
    connect: Callable[[], Database], blobs: BlobStore, waiter: str
) -> None:
    database = connect()
    lease = _claimed(database)
    _train(blobs, f"{training_name(KEY)}-{lease.job_id}-{lease.epoch}", f"{training_name(KEY)}-jearlier-3")
    if waiter == "runner":
        change_job(database, add_running_job(database).job_id, waiting_for=lease.job_id)
    if waiter == "queue":
        add_job(database, waiting_for=lease.job_id, awaited_key=KEY)
    with jobs.fenced(database, lease) as (session, job):
        jobs.cancelled(session, job)

    leftovers.clear(database, blobs, lease.job_id)

    assert len(blobs.training_names()) == (0 if waiter == "nobody" else 2)
    with database.read() as session:
        assert session.get(Claim, KEY) is None


def test_checkpoints_of_a_job_that_another_has_taken_over_from_stay(connect: Callable[[], Database], blobs: BlobStore) -> None:
    database = connect()
    over = add_job(database, state="cancelled", lease_epoch=1)
    _train(blobs, f"{training_name(KEY)}-{over}-1", f"{'b' * 16}-{over}-1")
    _claimed(database)

    leftovers.clear(database, blobs, over)

    assert blobs.training_names() == [f"{training_name(KEY)}-{over}-1"]


def test_what_a_hung_runner_wrote_after_its_supernet_was_stored_goes(connect: Callable[[], Database], blobs: BlobStore) -> None:
    database = connect()
    lease = _claimed(database)
    kept = [f"{'b' * 16}-{lease.job_id}-1", f"{lease.job_id}-1-rung-1"]
    _train(blobs, f"{training_name(KEY)}-{lease.job_id}-1", *kept)
    with database.write() as session:
        add_supernet(session, KEY)

    leftovers.sweep(database, blobs)

    assert sorted(blobs.training_names()) == sorted(kept)


@pytest.mark.parametrize("deleted", [False, True])
def test_what_a_job_leaves_that_ended_without_a_runner_goes(connect: Callable[[], Database], blobs: BlobStore, deleted: bool) -> None:
    database = connect()
    lease = _claimed(database)
    other = add_job(database, state="paused")
    _train(blobs, f"{training_name(KEY)}-{lease.job_id}-1", f"{lease.job_id}-1-rung-1", f"{other}-1-rung-1", "somebody-1")
    with jobs.fenced(database, lease) as (session, job):
        jobs.paused(session, job)
    with database.write() as session:
        jobs.request_cancel(session, lease.job_id)
        if deleted:
            lifecycle.delete(session, lease.job_id)

    leftovers.sweep(database, blobs)

    assert sorted(blobs.training_names()) == [f"{other}-1-rung-1", "somebody-1"]
    with database.read() as session:
        assert session.get(Claim, KEY) is None
