"""A scheduler that starts in the home of one that was killed cleans up after it, and one whose disk is full goes on when it is not."""

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from services import processes
from services.processes import start
from services.scheduler.supervisor import Supervisor
from services.scheduler.warm import Starter
from services.settings import Settings
from services.store import jobs, lifecycle
from services.store.blobs import BlobStore
from services.store.database import Database
from tests.services.store.conftest import backend, connect, migrated_url, postgres_server
from tests.services.store.rows import add_job, add_running_job, change_job, job_of

__all__ = ["backend", "connect", "migrated_url", "postgres_server"]


@pytest.fixture
def scheduler(connect: Callable[[], Database], tmp_path: Path) -> Supervisor:
    """A scheduler that describes no backbones."""
    settings = Settings(home=tmp_path, retry_seconds=0)
    supervisor = Supervisor(settings, connect(), BlobStore(str(tmp_path / "artifacts")), tmp_path)
    supervisor._start_describer = lambda: None  # type: ignore[method-assign]
    return supervisor


def _folder(home: Path, job_id: str, epoch: int) -> Path:
    folder = home / "work" / f"{job_id}-{epoch}"
    folder.mkdir(parents=True)
    (folder / "supernet.safetensors").write_bytes(b"x")
    return folder


def test_work_folders_of_leases_that_are_over_go_at_the_start(scheduler: Supervisor, tmp_path: Path) -> None:
    lease = add_running_job(scheduler.database)
    over = add_job(scheduler.database, state="succeeded", lease_epoch=1)
    (tmp_path / "artifacts" / "training" / f"{over}-1-rung-1").mkdir(parents=True)
    folders = [_folder(tmp_path, lease.job_id, 0), _folder(tmp_path, over, 1), _folder(tmp_path, "jdeleted", 3)]
    alive = _folder(tmp_path, lease.job_id, lease.epoch)

    scheduler.step()

    assert [folder.exists() for folder in folders] == [False, False, False]
    assert alive.exists()
    deadline = time.monotonic() + 30
    while list((tmp_path / "artifacts" / "training").iterdir()):  # the store is asked beside
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_folder_whose_lease_runs_out_later_goes_later(scheduler: Supervisor, tmp_path: Path) -> None:
    lease = add_running_job(scheduler.database)
    folder = _folder(tmp_path, lease.job_id, lease.epoch)
    scheduler.step()
    assert folder.exists()
    change_job(scheduler.database, lease.job_id, lease_epoch=lease.epoch + 1)
    scheduler.swept -= scheduler.settings.lease_seconds
    scheduler.step()
    assert not folder.exists()


def test_a_runner_that_cannot_be_started_is_started_later(scheduler: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = add_job(scheduler.database)

    def full(command: Sequence[str], *, log: Path | None = None, env: Mapping[str, str] | None = None) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(processes, "start", full)
        scheduler.step()
        waiting = job_of(scheduler.database, job_id)
        assert (waiting.state, waiting.attempts) == ("queued", 1)
        assert waiting.retry is not None
        assert "No space left" in waiting.retry["message"]
        scheduler.step()

    monkeypatch.setattr(processes, "start", lambda command, log: start(["sleep", "1000"], log=log))
    scheduler.step()
    assert job_of(scheduler.database, job_id).state == "running"
    scheduler.shut_down()


def test_a_runner_that_was_stopped_before_it_could_listen_has_not_failed(scheduler: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = add_job(scheduler.database)
    monkeypatch.setattr(processes, "start", lambda command, log: start(["sleep", "1000"], log=log))
    scheduler.step()

    scheduler.shut_down()

    job = job_of(scheduler.database, job_id)
    assert (job.state, job.attempts, job.next_try_at) == ("queued", 0, None)


def test_a_job_that_is_deleted_before_its_runners_end_is_seen_does_not_end_the_scheduler(
    scheduler: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = add_job(scheduler.database)
    monkeypatch.setattr(processes, "start", lambda command, log: start(["sleep", "1000"], log=log))
    scheduler.step()
    ((lease, runner),) = scheduler.runners.items()
    with jobs.fenced(scheduler.database, lease) as (session, job):
        jobs.succeed(session, job, {})
    with scheduler.database.write() as session:
        lifecycle.delete(session, job_id)
    runner.kill()
    runner.wait()
    scheduler.logs_kept = 0.0

    scheduler.step()

    assert scheduler.runners == {}


def test_a_job_waits_while_the_libraries_of_its_runner_are_being_loaded(scheduler: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = add_job(scheduler.database)
    monkeypatch.setattr(processes, "start", lambda command, log: start(["sleep", "1000"], log=log))
    with monkeypatch.context() as patch:
        patch.setattr(Starter, "loading", property(lambda starter: True))
        scheduler.step()
        assert (job_of(scheduler.database, job_id).state, job_of(scheduler.database, job_id).lease_epoch) == ("queued", 0)
    scheduler.step()
    assert job_of(scheduler.database, job_id).state == "running"
    scheduler.shut_down()
