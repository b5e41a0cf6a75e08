"""POST /v1/jobs with an Idempotency-Key: sent twice, one job; and whose key it is."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from services.api.app import create_app
from services.settings import Settings
from services.store.database import Database
from tests.services.api import stock

KEY = {"Idempotency-Key": "7b9e"}


def test_same_request_under_the_same_key_is_the_same_job(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    first = http.post("/v1/jobs", json=stock.body(data), headers=KEY)
    again = http.post("/v1/jobs", json=stock.body(data, budget="0.7k"), headers=KEY)

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert stock.counts(database) == (1, 1)


def test_repeated_request_shows_the_job_as_it_is_now_though_its_data_is_gone(
    http: TestClient, data: Path, backbone: str, database: Database
) -> None:
    job_id = http.post("/v1/jobs", json=stock.body(data), headers=KEY).json()["id"]
    http.post(f"/v1/jobs/{job_id}/cancel")
    shutil.rmtree(data)

    again = http.post("/v1/jobs", json=stock.body(data), headers=KEY)

    assert (again.status_code, again.json()["id"], again.json()["state"]) == (200, job_id, "cancelled")


def test_other_request_under_the_same_key_is_refused(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    job_id = http.post("/v1/jobs", json=stock.body(data), headers=KEY).json()["id"]

    refusal = http.post("/v1/jobs", json=stock.body(data, seed=1), headers=KEY)

    problem = refusal.json()
    assert (refusal.status_code, problem["type"]) == (422, "urn:glora:problem:idempotency-key-reused")
    assert (problem["job"], [error["field"] for error in problem["errors"]]) == (job_id, ["idempotency-key"])
    assert stock.counts(database) == (1, 1)


def test_refused_request_does_not_use_its_key_up(http: TestClient, data: Path, backbone: str) -> None:
    refused = http.post("/v1/jobs", json=stock.body("/no/such/folder"), headers=KEY)
    accepted = http.post("/v1/jobs", json=stock.body(data), headers=KEY)

    assert (refused.status_code, accepted.status_code) == (422, 201)


def test_without_a_key_every_request_is_a_job(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    for _ in range(2):
        assert http.post("/v1/jobs", json=stock.body(data)).status_code == 201

    assert stock.counts(database) == (2, 2)


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "b\xe9"])
def test_key_that_is_none_is_refused(http: TestClient, data: Path, backbone: str, database: Database, key: str) -> None:
    refusal = http.post("/v1/jobs", json=stock.body(data), headers=[(b"Idempotency-Key", key.encode("latin-1"))])  # type: ignore[arg-type]

    assert refusal.status_code == 422
    assert [error["field"] for error in refusal.json()["errors"]] == ["idempotency-key"]
    assert stock.counts(database) == (0, 0)


def test_many_requests_at_once_under_one_key_are_one_job(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/jobs", json=stock.body(data), headers=KEY), range(6)))

    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert stock.counts(database) == (1, 1)


@pytest.fixture
def shared(settings: Settings, app: FastAPI) -> TestClient:
    """The same service with two users."""
    known = {"token": SecretStr("one"), "users": {"ada": SecretStr("two")}}
    return TestClient(create_app(settings.model_copy(update=known)), follow_redirects=False)


def test_two_users_may_send_the_same_key(shared: TestClient, data: Path, backbone: str) -> None:
    def submit(token: str) -> Any:
        return shared.post("/v1/jobs", json=stock.body(data), headers=KEY | {"Authorization": f"Bearer {token}"})

    answers = [submit("one"), submit("two")]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert [answer.json()["user"] for answer in answers] == ["default", "ada"]
    assert submit("three").status_code == 401


def test_browser_of_a_user_acts_as_that_user(shared: TestClient, data: Path, backbone: str) -> None:
    shared.get("/?token=two")

    answer = shared.post("/v1/jobs", json=stock.body(data), headers={"Sec-Fetch-Site": "same-origin"})

    assert (answer.status_code, answer.json()["user"]) == (201, "ada")


@pytest.mark.parametrize(
    "users",
    [
        pytest.param({"ada": "one"}, id="the service's own token"),
        pytest.param({"ada": "two", "bob": "two"}, id="one token of two users"),
        pytest.param({"default": "two"}, id="the name of the own token"),
        pytest.param({"a b": "two"}, id="no name"),
        pytest.param({"ada": " "}, id="no token"),
    ],
)
def test_users_that_cannot_be_told_apart_are_refused(users: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"user|token|name|pattern"):
        Settings(token=SecretStr("one"), users=users)  # type: ignore[arg-type]
