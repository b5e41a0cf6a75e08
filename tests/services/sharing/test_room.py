"""A running job says when it waits for room on a cluster that others hold, once, and when it has found some."""

import pytest

from services.cluster.resources import Share
from services.scheduler.context import RunContext
from services.scheduler.room import _LOOKS, Room
from services.store.database import Database
from tests.services.sharing.conftest import Runner
from tests.services.store.rows import change_job, events_of


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, float]]:
    """What of each node is free, for a test to change: nothing at first."""
    nodes = {"one": {"CPU": 0.0}, "two": {"CPU": 0.0}}
    monkeypatch.setattr("services.cluster.resources.available_resources_per_node", lambda: nodes)
    return nodes


def told(database: Database, context: RunContext) -> list[tuple[str, str]]:
    events = events_of(database, context.lease.job_id)
    return [(event.kind, event.data.get("message", "")) for event in events if event.kind.startswith("room_")]


def look(room: Room, *, busy: bool = False) -> None:
    for _ in range(_LOOKS):
        room(busy)


def test_job_with_nothing_at_work_and_no_room_says_so_once(runner: Runner, database: Database, free: dict[str, dict[str, float]]) -> None:
    context = runner()
    room = Room(context)
    with context.wanting("evaluator", Share()):
        look(room)
        look(room)

        words = "the job asks for 1 evaluator with 1 CPU each, and 0 CPUs of the cluster are free"
        assert told(database, context) == [("room_awaited", words)]

        look(room, busy=True)
        assert told(database, context)[1:] == [("room_found", "")]


def test_processes_of_two_cpus_find_no_room_in_halves_of_nodes(
    runner: Runner, database: Database, free: dict[str, dict[str, float]]
) -> None:
    context = runner()
    free["one"]["CPU"] = free["two"]["CPU"] = 1.0
    room = Room(context)
    with context.wanting("training worker", Share(cpus=2), 2):
        look(room)
        words = "the job asks for 2 training workers with 2 CPUs each, and 2 CPUs of the cluster are free"
        assert told(database, context) == [("room_awaited", words)]

        free["one"]["CPU"] = free["two"]["CPU"] = 2.0
        room(False)
        assert told(database, context)[1:] == [("room_found", "")]


def test_job_that_asks_nothing_of_the_cluster_or_is_at_work_says_nothing(
    runner: Runner, database: Database, free: dict[str, dict[str, float]]
) -> None:
    context = runner()
    room = Room(context)
    look(room)
    with context.wanting("finalist", Share()):
        look(room, busy=True)
        for busy in [False, True] * _LOOKS:
            room(busy)
    assert told(database, context) == []


def test_runner_that_lost_its_job_says_nothing(runner: Runner, database: Database, free: dict[str, dict[str, float]]) -> None:
    context = runner()
    room = Room(context)
    change_job(database, context.lease.job_id, lease_epoch=9)
    with context.wanting("finalist", Share()):
        look(room)
    assert told(database, context) == []
