"""The queue as users see it: places, reasons, priorities and quotas, in JSON, on the pages and in the shell."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from services.api import admission
from services.api.app import create_app
from services.settings import Settings
from services.store import schedulers
from services.store.database import Database
from services.store.models import Job
from tests.services.api import stock


@pytest.fixture
def scheduler(database: Database) -> None:
    """A scheduler that runs one job at once."""
    with database.write() as session:
        schedulers.beat(session, "scheduler", 1, 600)


@pytest.mark.usefixtures("scheduler")
def test_waiting_jobs_tell_their_places(http: TestClient, data: Path, backbone: str) -> None:
    first, second = (http.post("/v1/jobs", json=stock.body(data, priority=priority)).json() for priority in (0, 7))

    assert second["waiting"] == {"position": 1, "of": 2, "reason": "next", "message": "a scheduler takes it in a moment"}
    behind = {"position": 2, "of": 2, "reason": "jobs_ahead", "message": "1 job ahead of it"}
    assert http.get(f"/v1/jobs/{first['id']}").json()["waiting"] == behind
    listed = {row["id"]: row for row in http.get("/v1/jobs").json()["items"]}
    assert listed[first["id"]]["waiting"] == behind
    assert (listed[second["id"]]["priority"], listed[second["id"]]["user"]) == (7, "default")


def test_job_that_runs_or_is_over_waits_for_nothing(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    assert http.get(f"/v1/jobs/{lease.job_id}").json()["waiting"] is None
    stock.fail(database, lease)

    assert [row["waiting"] for row in http.get("/v1/jobs").json()["items"]] == [None]


def test_without_a_scheduler_that_is_told(http: TestClient, database: Database) -> None:
    job_id = stock.add_job(database)

    assert http.get(f"/v1/jobs/{job_id}").json()["waiting"]["reason"] == "no_scheduler"
    for page in ("/", f"/jobs/{job_id}", f"/jobs/{job_id}/live"):
        assert "waiting, 1 of 1: no scheduler is running" in http.get(page).text


@pytest.mark.parametrize("change", [{"priority": 101}, {"priority": -101}, {"priority": 0.5}, {"max_hours": 0}, {"max_hours": -1}])
def test_priority_and_hours_are_bounded(http: TestClient, data: Path, backbone: str, change: dict[str, Any]) -> None:
    refusal = http.post("/v1/jobs", json=stock.body(data, **change))

    assert (refusal.status_code, [error["field"] for error in refusal.json()["errors"]]) == (422, list(change))


def _shared(settings: Settings, **quotas: Any) -> TestClient:
    known = {"token": SecretStr("one"), "users": {"ada": SecretStr("two")}} | quotas
    return TestClient(create_app(settings.model_copy(update=known)), follow_redirects=False)


def _submit(http: TestClient, token: str, data: Path, **headers: str) -> Any:
    return http.post("/v1/jobs", json=stock.body(data), headers={"Authorization": f"Bearer {token}"} | headers)


def test_full_queue_refuses_its_users_next_job_with_what_there_is(
    settings: Settings, app: FastAPI, data: Path, backbone: str, database: Database
) -> None:
    http = _shared(settings, user_queued_jobs=1)
    accepted = _submit(http, "one", data, **{"Idempotency-Key": "k"})

    refused, other = _submit(http, "one", data), _submit(http, "two", data)

    problem = refused.json()
    assert (accepted.status_code, refused.status_code, other.status_code) == (201, 429, 201)
    assert problem["type"] == "urn:glora:problem:quota-exceeded"
    assert (problem["quota"], problem["limit"], problem["used"]) == ("queued_jobs", 1, 1)
    assert _submit(http, "one", data, **{"Idempotency-Key": "k"}).status_code == 200
    assert stock.counts(database) == (2, 2)


def test_running_quota_holds_a_users_jobs_back_and_says_so(settings: Settings, app: FastAPI, database: Database) -> None:
    stock.add_running(database)
    waiting = stock.add_job(database)
    with database.write() as session:
        schedulers.beat(session, "scheduler", 9, 600)
    http = _shared(settings, user_running_jobs=1)

    place = http.get(f"/v1/jobs/{waiting}", headers={"Authorization": "Bearer two"}).json()["waiting"]

    assert (place["reason"], place["message"]) == ("quota", "default runs 1 job, as many as a user may")


def test_evaluators_that_a_job_may_hold_by_its_users_quota_are_told_while_it_searches(settings: Settings, database: Database) -> None:
    searching, training = (stock.add_running(database).job_id for _ in range(2))
    with database.write() as session:
        session.get_one(Job, searching).phase = "search"

    def told(job_id: str, **quota: int) -> int | None:
        found: int | None = (
            _shared(settings, **quota).get(f"/v1/jobs/{job_id}", headers={"Authorization": "Bearer two"}).json()["evaluators"]
        )
        return found

    assert (told(searching, user_evaluators=3), told(training, user_evaluators=3), told(searching)) == (3, None, None)


@pytest.mark.parametrize("busy", [{"one": 6}, {"a": 6, "b": 6}], ids=["of the user", "in all"])
def test_submission_is_sent_away_where_too_many_are_being_checked(
    busy: dict[str, int], http: TestClient, data: Path, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_checking", Counter({"default" if name == "one" else name: count for name, count in busy.items()}))

    refusal = _submit(http, "one", data)

    assert (refusal.status_code, refusal.json()["type"], refusal.headers["retry-after"]) == (503, "urn:glora:problem:busy", "2")
    monkeypatch.setattr(admission, "_checking", Counter({"default": 5, "a": 6}))
    assert _submit(http, "one", data).status_code == 201
    assert admission._checking["default"] == 5
