"""Jobs made from a finished one: extended, the search is that of a longer one; forked, it starts searching at once."""

from typing import Any

import pytest

from tests.service.conftest import Service

pytestmark = pytest.mark.slow


def _kinds(service: Service, job_id: str) -> list[str]:
    return [event["kind"] for event in service.client.events(job_id)]


@pytest.fixture(scope="module")
def request_of(data: Any, backbone: str) -> dict[str, Any]:
    return {
        "backbone": {"name": backbone},
        "data": {"path": str(data)},
        "budget": 700,
        "training": {"epochs": 4, "learning_rate": 0.01, "sampling": "budget"},
        "search": {"population": 8, "generations": 4, "evaluators": 1},
        "finals": {"mode": "off"},
        "seed": 41,
    }


@pytest.fixture(scope="module")
def finished(service: Service, request_of: dict[str, Any]) -> dict[str, Any]:
    return service.wait(service.client.submit(request_of)["id"])


def test_extended_search_equals_one_that_was_longer_from_the_start(
    service: Service, finished: dict[str, Any], request_of: dict[str, Any]
) -> None:
    extended = service.wait(service.client.extend(finished["id"], 3)["id"])
    longer = service.wait(service.client.submit(request_of | {"search": {"population": 8, "generations": 7, "evaluators": 1}})["id"])

    assert extended["state"] == longer["state"] == "succeeded", (extended["failure"], longer["failure"])
    assert service.populations(extended["id"]) == service.populations(longer["id"])
    assert extended["result"]["winner"] == longer["result"]["winner"]
    assert extended["result"]["made_from"] == {
        "job": finished["id"],
        "action": "extend",
        "inherited_generations": 4,
        "generations": 7,
    }
    kinds = _kinds(service, extended["id"])
    assert (kinds.count("generation"), kinds.count("epoch"), kinds.count("supernet_found")) == (3, 0, 1)
    assert service.client.job(finished["id"])["result"] == finished["result"]


def test_fork_searches_at_once_over_the_same_supernet(service: Service, finished: dict[str, Any]) -> None:
    fork = service.client.fork(finished["id"], budget=500, seed=7, search={"strategy": "random", "metric": "macro-accuracy"})
    over = service.wait(fork["id"])

    assert over["state"] == "succeeded", over["failure"]
    assert over["supernet"] == finished["supernet"]
    assert over["result"]["winner"]["parameters"] <= 500
    assert over["result"]["made_from"] == {"job": finished["id"], "action": "fork"}
    assert "epoch" not in _kinds(service, fork["id"])
