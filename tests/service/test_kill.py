"""Killing processes of the embedded service, which starts them again itself; for all others see `tests/chaos`."""

from typing import Any

import pytest

from services import processes
from tests.service.conftest import Service, kill, start_service

pytestmark = [pytest.mark.slow, pytest.mark.chaos]


@pytest.fixture(scope="module")
def undisturbed(service: Service, data: Any, backbone: str) -> dict[str, Any]:
    """The reference run: its request, populations and winner."""
    request = {
        "backbone": {"name": backbone},
        "data": {"path": str(data)},
        "budget": 700,
        "training": {"epochs": 5, "batch_size": 50, "learning_rate": 0.01},
        "search": {"population": 12, "generations": 40, "evaluators": 1},
        "finals": {"mode": "off"},
        "seed": 11,
    }
    job = service.wait(service.client.submit(request)["id"])
    assert job["state"] == "succeeded", job["failure"]
    known = {"populations": service.populations(job["id"]), "winner": job["result"]["winner"], "evaluated": job["cache"]["evaluated"]}
    return {"request": request} | known


def _generation(number: int) -> Any:
    return lambda event: event["kind"] == "generation" and event["data"]["generation"] == number


def test_search_with_killed_processes_equals_an_undisturbed_search(service: Service, undisturbed: dict[str, Any]) -> None:
    service.forget()
    job = service.client.submit(undisturbed["request"])
    for number, victim in ((5, "runner"), (20, "raylet")):
        service.wait_for_event(job["id"], _generation(number))
        kill(service.children()[victim])
    over = service.wait(job["id"])
    assert over["state"] == "succeeded", over["failure"]
    resumed = [event["kind"] for event in service.client.events(job["id"])].count("resumed")
    assert resumed in (2, 3)  # a runner that comes before Ray's end was seen goes as well
    assert over["cache"]["evaluated"] == undisturbed["evaluated"] > 0
    assert service.populations(job["id"]) == undisturbed["populations"]
    assert over["result"]["winner"] == undisturbed["winner"]


def test_whole_service_killed_and_started_again_finishes_the_same_search(
    undisturbed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    first = start_service(home)
    job = first.client.submit(undisturbed["request"])
    first.wait_for_event(job["id"], _generation(5))
    kill(first.process.pid)
    first.process.wait()
    (home / "server.json").unlink()
    second = start_service(home)
    try:
        over = second.wait(job["id"])
        assert over["state"] == "succeeded", over["failure"]
        assert second.populations(job["id"]) == undisturbed["populations"]
        assert over["result"]["winner"] == undisturbed["winner"]
    finally:
        processes.stop(second.process, 30)


def test_killed_training_goes_on_from_its_last_checkpoint(service: Service, request_body: dict[str, Any]) -> None:
    request_body["training"] |= {"epochs": 500, "policy": "random"}
    request_body["seed"] = 23
    job = service.client.submit(request_body)
    for number, victim in ((120, "training-worker"), (270, "runner")):
        service.wait_for_event(job["id"], lambda event, number=number: event["kind"] == "epoch" and event["data"]["epoch"] >= number)
        kill(service.children()[victim])
    over = service.wait(job["id"])
    epochs = [event["data"]["epoch"] for event in service.client.events(job["id"]) if event["kind"] == "epoch"]
    assert over["state"] == "succeeded", over["failure"]
    assert epochs.count(1) == 1
    assert sorted(set(epochs)) == list(range(1, 501))
