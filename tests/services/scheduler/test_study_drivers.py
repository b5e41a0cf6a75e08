"""A scheduler's part in studies, with drivers that do nothing: whom it starts, and what becomes of a study whose driver ends."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from services import processes
from services.cluster.resources import ClusterUnavailable
from services.scheduler.studies import StudyDrivers
from services.scheduler.study_runner import reason_of
from services.scheduler.warm import Starter
from services.settings import Settings
from services.store import studies, study_leases
from services.store.database import Database
from services.store.errors import LeaseLost
from services.store.models import Study
from tests.services.store.study_rows import add_study

_start = processes.start


@pytest.fixture
def drivers(database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[StudyDrivers]:
    """A scheduler's studies; each driver sleeps."""

    def idle(command: Sequence[str], *, log: Path | None = None, env: Any = None) -> "subprocess.Popen[bytes]":
        Path(command[-1]).mkdir(parents=True)
        return _start(["sleep", "1000"], log=log)

    monkeypatch.setattr(processes, "start", idle)
    made = StudyDrivers(settings.model_copy(update={"max_running_studies": 2}), database, settings.home, "scheduler", Starter())
    yield made
    for process in made.running.values():
        processes.stop(process)


def states(database: Database) -> list[str]:
    with database.read() as session:
        return [study.state for study in reversed(studies.page(session))]


def study(database: Database, study_id: str) -> Study:
    with database.read() as session:
        return studies.get(session, study_id)


def test_so_many_studies_are_driven_at_once_as_may_be_oldest_first(drivers: StudyDrivers, database: Database) -> None:
    for _ in range(3):
        add_study(database)

    drivers.step()

    assert states(database) == ["running", "running", "queued"]


def test_study_whose_driver_was_killed_waits_for_the_next_one(drivers: StudyDrivers, database: Database, settings: Settings) -> None:
    study_id = add_study(database)
    drivers.step()
    ((lease, process),) = drivers.running.items()
    assert (settings.home / "work" / f"{study_id}-1").exists()
    process.kill()
    process.wait()

    drivers.step()

    assert drivers.running == {}
    waiting = study(database, study_id)
    assert (waiting.state, waiting.attempts, waiting.next_try_at is not None) == ("queued", 1, True)
    assert not (settings.home / "work" / f"{study_id}-1").exists()
    with pytest.raises(LeaseLost):
        study_leases.renew(database, lease, 60)


def test_scheduler_that_stops_gives_its_studies_back_at_no_cost(drivers: StudyDrivers, database: Database) -> None:
    study_id = add_study(database)
    drivers.step()
    ((_, process),) = drivers.running.items()
    process.returncode = 143  # as a driver ends that was asked to

    drivers.shut_down()

    assert (study(database, study_id).state, study(database, study_id).attempts) == ("queued", 0)
    os.kill(process.pid, signal.SIGKILL)


def test_lease_of_a_driver_that_starts_is_kept_and_one_that_takes_too_long_is_ended(drivers: StudyDrivers, database: Database) -> None:
    study_id = add_study(database)
    drivers.step()
    first = study(database, study_id).lease_expires_at
    ((_, process),) = drivers.running.items()

    drivers.step()
    kept = study(database, study_id).lease_expires_at
    drivers.settings = drivers.settings.model_copy(update={"start_seconds": 1e-9})
    drivers.step()

    assert first is not None and kept is not None and kept > first
    assert process.poll() is not None
    assert study(database, study_id).state == "queued"


def test_cancelled_study_is_left_alone_when_its_driver_ends(drivers: StudyDrivers, database: Database) -> None:
    study_id = add_study(database)
    drivers.step()
    ((_, process),) = drivers.running.items()
    with database.write() as session:
        studies.cancel(session, study_id)
    process.kill()
    process.wait()

    drivers.step()

    assert (study(database, study_id).state, study(database, study_id).attempts) == ("cancelled", 0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ClusterUnavailable("no Ray cluster answers"), "cluster_unavailable"),
        (OperationalError("select", {}, Exception()), "database_unavailable"),
        (ValueError("a mistake"), "internal_error"),
    ],
)
def test_failure_of_a_driver_has_a_typed_reason(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
