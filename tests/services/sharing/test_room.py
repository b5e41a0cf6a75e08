"""A running job says when it waits for room on a cluster that others hold, once, and when it has found some."""

import pytest

from services.scheduler.room import Room
from services.store.database import Database
from tests.services.sharing.conftest import Runner
from tests.services.store.rows import change_job, events_of


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What of the cluster is free, for a test to change: nothing at first."""
    amounts = {"CPU": 0.0}
    monkeypatch.setattr("services.cluster.resources.ray.available_resources", lambda: amounts)
    return amounts


def told(database: Database, job_id: str) -> list[tuple[str, str]]:
    return [(event.kind, event.data.get("message", "")) for event in events_of(database, job_id) if event.kind.startswith("room_")]


def test_job_with_nothing_at_work_and_no_room_says_so_once(runner: Runner, database: Database, free: dict[str, float]) -> None:
    context = runner()
    context.enter("search")
    room = Room(context)
    for _ in range(4):
        room(False)

    words = "the job asks for 1 evaluator with 1 CPU each, and 0 CPUs of the cluster are free"
    assert told(database, context.lease.job_id) == [("room_awaited", words)]

    room(True)
    room(True)
    assert told(database, context.lease.job_id)[1:] == [("room_found", "")]


def test_as_many_training_workers_as_are_asked_for_need_room(runner: Runner, database: Database, free: dict[str, float]) -> None:
    context = runner()
    context.request = context.request.model_copy(update={"training": context.request.training.model_copy(update={"workers": 2})})
    context.enter("train")
    free["CPU"] = 1.0
    room = Room(context)
    room(False)
    room(False)
    words = "the job asks for 2 training workers with 1 CPU each, and 1 CPUs of the cluster are free"
    assert told(database, context.lease.job_id) == [("room_awaited", words)]

    free["CPU"] = 2.0
    room(False)
    assert told(database, context.lease.job_id)[1:] == [("room_found", "")]


@pytest.mark.parametrize("looks", [(True, True, True), (False, True, False, True)])
def test_job_at_work_that_holds_all_of_the_cluster_says_nothing(
    looks: tuple[bool, ...], runner: Runner, database: Database, free: dict[str, float]
) -> None:
    context = runner()
    room = Room(context)
    for busy in looks:
        room(busy)
    assert told(database, context.lease.job_id) == []


def test_runner_that_lost_its_job_says_nothing(runner: Runner, database: Database, free: dict[str, float]) -> None:
    context = runner()
    room = Room(context)
    change_job(database, context.lease.job_id, lease_epoch=9)
    for _ in range(3):
        room(False)
    assert told(database, context.lease.job_id) == []
