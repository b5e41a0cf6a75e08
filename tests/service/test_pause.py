"""A job paused in its training, in its search and in its finals, each time resumed: it ends as if it had been left alone."""

import time
from typing import Any

import pytest

from tests.service.conftest import Service

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 60


def _paused(service: Service, job_id: str) -> dict[str, Any]:
    """The job once it is paused, and nothing of it holds the cluster."""
    service.client.pause(job_id)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (job := service.client.job(job_id))["state"] != "paused" or {"runner", "ray-evaluator"} & set(service.children()):
        assert time.monotonic() < deadline, (job["state"], job["phase"], service.children())
        time.sleep(0.1)
    return job


def _reached(kind: str, field: str, least: int) -> Any:
    return lambda event: event["kind"] == kind and event["data"][field] >= least


def test_job_paused_in_every_phase_ends_like_one_that_was_left_alone(service: Service, request_body: dict[str, Any]) -> None:
    request_body["training"] |= {"epochs": 300, "policy": "random"}
    request_body["search"] |= {"generations": 40}
    request_body["finals"] = {"candidates": 2, "learning_rates": [0.01], "epochs": [50, 100], "scratch_epochs": 50, "soup": False}
    request_body["seed"] = 31
    job_id = service.client.submit(request_body)["id"]
    phases = []
    for kind, field, least in (("epoch", "epoch", 60), ("generation", "generation", 10), ("finalist", "epochs", 1)):
        service.wait_for_event(job_id, _reached(kind, field, least))
        phases.append(_paused(service, job_id)["phase"])
        service.client.resume(job_id)
    over = service.wait(job_id)
    events = list(service.client.events(job_id))
    epochs = [event["data"]["epoch"] for event in events if event["kind"] == "epoch"]
    trained = [event["data"] for event in events if event["kind"] == "finalist"]

    assert over["state"] == "succeeded", over["failure"]
    assert phases == ["train", "search", "finals"]
    assert epochs == list(range(1, 301))  # none twice, so the pause kept the epoch in hand
    assert len(trained) == len([finalist for finalist in over["result"]["finalists"] if finalist["epochs"]])  # no trial twice
    populations = service.populations(job_id)
    service.forget()
    alone = service.wait(service.client.submit(request_body)["id"])
    assert alone["cache"]["evaluated"] == over["cache"]["evaluated"] > 0
    assert service.populations(alone["id"]) == populations
    assert alone["result"]["winner"] == over["result"]["winner"]
    assert alone["result"]["finalists"] == over["result"]["finalists"]
