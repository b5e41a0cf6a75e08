"""Two jobs that run at once and need the same supernet: it is trained once, whoever of them dies."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from services import processes
from services.client import Client
from tests.service.conftest import Service, kill, start_service

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that runs two jobs at once; a runner may take long to start where two of them do."""
    running = start_service(
        tmp_path_factory.mktemp("home"), GLORA_MAX_RUNNING_JOBS="2", GLORA_LEASE_SECONDS="60", GLORA_AWAIT_SECONDS="0.5"
    )
    yield running
    processes.stop(running.process, 30)


def _epochs(client: Client, *jobs: str) -> list[int]:
    return [event["data"]["epoch"] for job in jobs for event in client.events(job) if event["kind"] == "epoch"]


@pytest.mark.parametrize("cut", ["nothing", "the trainer is cancelled"])
def test_supernet_that_two_jobs_need_is_trained_once_and_whoever_waits_holds_up_no_other(
    cut: str, double: Service, request_body: dict[str, Any]
) -> None:
    request_body["training"] |= {"epochs": 400, "policy": "random"}
    request_body["seed"] = {"nothing": 51, "the trainer is cancelled": 52}[cut]
    first = double.client.submit(request_body)["id"]
    double.wait_for_event(first, lambda event: event["kind"] == "epoch" and event["data"]["epoch"] >= 100)
    trainer = double.children()["training-worker"]
    kill(trainer, signal.SIGSTOP)  # for less than the minute after which Ray Train would replace it
    second = double.client.submit(request_body | {"search": {"population": 6, "generations": 2, "evaluators": 1}})["id"]
    awaited = double.wait_for_event(second, lambda event: event["kind"] == "supernet_awaited")
    given = double.wait_for_event(second, lambda event: event["kind"] == "requeued")
    assert (awaited["data"]["job"], given["data"]["job"], given["data"]["attempts"]) == (first, first, 0)
    third = double.client.submit(request_body | {"seed": 59})["id"]
    double.wait_for_event(third, lambda event: event["kind"] == "started")
    told = double.client.job(second)
    assert (told["state"], told["waiting"]["reason"], told["waiting_for"]) == ("queued", "supernet", first)
    double.client.cancel(third)
    if cut == "nothing":
        kill(trainer, signal.SIGCONT)
    else:
        double.client.cancel(first)

    over = double.wait(second)

    assert over["state"] == "succeeded", over["failure"]
    epochs = _epochs(double.client, first, second)
    assert sorted(set(epochs)) == list(range(1, 401))
    assert epochs.count(1) == 1  # a taker goes on from the last checkpoint
    assert (len(_epochs(double.client, second)) == 0) == (cut == "nothing")
    if cut == "nothing":
        assert double.wait(first)["supernet"] == over["supernet"]
    assert not any((double.home / "artifacts" / "training").iterdir())
