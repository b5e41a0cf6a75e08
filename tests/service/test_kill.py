"""Killing processes in the middle of a search or of the finals: the finished job is identical to an undisturbed one."""

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
        "training": {"epochs": 5, "learning_rate": 0.01},
        "search": {"population": 12, "generations": 40},
        "finals": {"mode": "off"},
        "seed": 11,
    }
    job = service.wait(service.client.submit(request)["id"])
    assert job["state"] == "succeeded", job["failure"]
    return {"request": request, "populations": service.populations(job["id"]), "winner": job["result"]["winner"]}


def _generation(number: int) -> Any:
    return lambda event: event["kind"] == "generation" and event["data"]["generation"] == number


@pytest.mark.parametrize("victim", ["scheduler", "runner", "ray", "raylet", "api"])
def test_search_with_a_killed_process_equals_an_undisturbed_search(
    victim: str, undisturbed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    fresh = start_service(tmp_path_factory.mktemp("home"))
    try:
        job = fresh.client.submit(undisturbed["request"])
        fresh.wait_for_event(job["id"], _generation(5))
        kill(fresh.children()[victim])
        over = fresh.wait(job["id"])
        assert over["state"] == "succeeded", over["failure"]
        assert fresh.populations(job["id"]) == undisturbed["populations"]
        assert over["result"]["winner"] == undisturbed["winner"]
    finally:
        processes.stop(fresh.process, 30)


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


@pytest.mark.parametrize("victim", ["runner", "training-worker"])
def test_killed_training_goes_on_from_its_last_checkpoint(victim: str, service: Service, request_body: dict[str, Any]) -> None:
    request_body["training"] |= {"epochs": 1000, "policy": "random"}
    request_body["seed"] = {"runner": 23, "training-worker": 24}[victim]
    job = service.client.submit(request_body)
    service.wait_for_event(job["id"], lambda event: event["kind"] == "epoch" and event["data"]["epoch"] >= 500)
    kill(service.children()[victim])
    over = service.wait(job["id"])
    epochs = [event["data"]["epoch"] for event in service.client.events(job["id"]) if event["kind"] == "epoch"]
    assert over["state"] == "succeeded", over["failure"]
    assert epochs.count(1) == 1
    assert sorted(set(epochs)) == list(range(1, 1001))


def test_runner_killed_in_the_middle_of_a_rung_ends_with_the_same_finals_and_trains_no_trial_twice(
    service: Service, request_body: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    request_body["finals"] = {"candidates": 2, "learning_rates": [0.01, 0.003], "epochs": [150, 300], "scratch_epochs": 150}
    undisturbed = service.wait(service.client.submit(request_body)["id"])
    fresh = start_service(tmp_path_factory.mktemp("home"))
    try:
        job = fresh.client.submit(request_body)
        done = 0

        def middle(event: dict[str, Any]) -> bool:
            nonlocal done
            done += event["kind"] == "finalist"
            return done == 3

        fresh.wait_for_event(job["id"], middle)
        kill(fresh.children()["runner"])
        over = fresh.wait(job["id"])
        log = list(fresh.client.events(job["id"]))
        trained = [_trial(event["data"]) for event in log if event["kind"] == "finalist"]
        opened = [event["data"] for event in log if event["kind"] == "finals"]
        assert over["state"] == "succeeded", over["failure"]
        assert over["result"]["winner"] == undisturbed["result"]["winner"]
        assert over["result"]["finalists"] == undisturbed["result"]["finalists"]
        assert sorted(trained) == sorted(map(_trial, over["result"]["finalists"]))
        assert [rung["rung"] for rung in opened] == [1, 1, 2]
        assert opened[1]["missing"] < opened[0]["missing"]
    finally:
        processes.stop(fresh.process, 30)


def _trial(data: dict[str, Any]) -> tuple[Any, ...]:
    """What tells a finalist from the others."""
    return data["source"], data["start"], data["learning_rate"], data["rung"]
