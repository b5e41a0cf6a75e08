"""What can be done with a job over HTTP, and the refusals, which name the states that would be accepted."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from services.api.derived import CloneRequest
from services.job_request import JobRequest
from services.store.database import Database
from tests.services.api import stock


def test_queued_job_is_paused_and_resumed(http: TestClient, database: Database) -> None:
    job_id = stock.add_job(database)

    first, again = (http.post(f"/v1/jobs/{job_id}/pause") for _ in range(2))
    assert (first.status_code, first.json()["state"], again.json()["state"]) == (202, "paused", "paused")
    assert [job["id"] for job in http.get("/v1/jobs?state=paused").json()["items"]] == [job_id]
    assert http.post(f"/v1/jobs/{job_id}/resume").json()["state"] == "queued"


def test_running_job_says_that_it_is_pausing(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)

    job = http.post(f"/v1/jobs/{lease.job_id}/pause").json()

    assert (job["state"], job["pause_requested"]) == ("running", True)


@pytest.mark.parametrize(("action", "accepted"), [("pause", ["queued", "running"]), ("resume", ["paused"])])
def test_refusal_names_the_state_and_those_that_would_be_accepted(
    action: str, accepted: list[str], http: TestClient, database: Database
) -> None:
    lease = stock.add_running(database)
    stock.succeed(database, lease)

    refusal = http.post(f"/v1/jobs/{lease.job_id}/{action}")

    assert (refusal.status_code, refusal.headers["content-type"]) == (409, "application/problem+json")
    assert refusal.json()["type"] == "urn:glora:problem:wrong-state"
    assert (refusal.json()["state"], refusal.json()["accepted"]) == ("succeeded", accepted)


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_unknown_job_is_not_found(action: str, http: TestClient) -> None:
    assert http.post(f"/v1/jobs/j0/{action}").status_code == 404


def finished(database: Database, **changes: Any) -> str:
    """A succeeded job with a supernet and two generations."""
    lease = stock.add_running(database, search={"generations": 2, "population": 3, "strategy": "evolution"}, **changes)
    stock.add_search(database, lease, generations=2, population=3)
    stock.succeed(database, lease)
    return lease.job_id


def test_finished_job_is_extended_by_a_job_that_has_its_generations(http: TestClient, database: Database) -> None:
    parent = finished(database)

    made = http.post(f"/v1/jobs/{parent}/extend", json={"generations": 5})
    job = made.json()

    assert (made.status_code, made.headers["location"]) == (201, f"/v1/jobs/{job['id']}")
    assert (job["state"], job["generations_done"], job["request"]["search"]["generations"]) == ("queued", 2, 7)
    assert job["lineage"] == {"job": parent, "action": "extend"}
    assert http.get(f"/v1/jobs/{parent}").json()["children"] == [{"job": job["id"], "action": "extend"}]
    assert http.get(f"/v1/jobs/{parent}").json()["state"] == "succeeded"
    assert len(http.get(f"/v1/jobs/{job['id']}/evaluations").json()["items"]) == 6
    assert http.get("/v1/jobs").json()["items"][0]["parent_id"] == parent


def test_fork_changes_what_is_asked_for_over_the_same_supernet(http: TestClient, database: Database) -> None:
    parent = finished(database, seed=4)
    changes = {"budget": "0.6k", "seed": 9, "search": {"strategy": "nsga2", "metric": "macro-accuracy"}, "finals": {"mode": "off"}}

    job = http.post(f"/v1/jobs/{parent}/fork", json=changes | {"name": "other"}).json()

    request, before = job["request"], http.get(f"/v1/jobs/{parent}").json()["request"]
    assert (job["name"], job["supernet"], job["generations_done"]) == ("other", f"{parent}-supernet", 0)
    assert (request["budget"], request["seed"], request["search"]["seed"], request["finals"]["mode"]) == (600, 4, 9, "off")
    assert request["search"] == before["search"] | {"strategy": "nsga2", "metric": "macro-accuracy", "seed": 9}
    assert request["training"] == before["training"]


def test_fork_of_a_supernet_that_was_trained_within_its_budget_keeps_that_training(http: TestClient, database: Database) -> None:
    parent = finished(database, training={"sampling": "budget"})

    child = http.post(f"/v1/jobs/{parent}/fork", json={"budget": 600}).json()
    grandchild = http.post(f"/v1/jobs/{child['id']}/fork", json={"budget": 650}).json()

    assert [job["request"]["training"]["sampling_budget"] for job in (child, grandchild)] == [700, 700]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"budget": 1}, "budget"),
        ({"budget": "plenty"}, "budget"),
        ({"search": {"strategy": "luck"}}, "search.strategy"),
        ({"search": {"metric": "MulticlassAUROC?"}}, "search.metric"),
        ({"training": {"epochs": 3}}, "training"),
    ],
)
def test_refused_fork_names_the_field_and_creates_nothing(
    changes: dict[str, Any], field: str, http: TestClient, database: Database
) -> None:
    parent = finished(database, space={"preset": "lora-2"})
    before = stock.counts(database)

    refusal = http.post(f"/v1/jobs/{parent}/fork", json=changes)

    assert (refusal.status_code, [error["field"] for error in refusal.json()["errors"]]) == (422, [field])
    assert stock.counts(database) == before


@pytest.mark.parametrize(("action", "body"), [("extend", {"generations": 1}), ("fork", {})])
def test_job_that_has_not_got_that_far_can_be_neither_extended_nor_forked(
    action: str, body: dict[str, Any], http: TestClient, database: Database
) -> None:
    job_id = stock.add_job(database)

    refusal = http.post(f"/v1/jobs/{job_id}/{action}", json=body)

    assert (refusal.status_code, refusal.json()["state"], refusal.json()["accepted"]) == (409, "queued", ["succeeded"])


def test_clone_is_checked_and_queued_like_a_new_submission(http: TestClient, data: Path, backbone: str) -> None:
    parent = http.post("/v1/jobs", json=stock.body(data, training={"epochs": 7, "learning_rate": 0.02})).json()

    job = http.post(f"/v1/jobs/{parent['id']}/clone", json={"training": {"epochs": 9}, "seed": 5}).json()
    refusal = http.post(f"/v1/jobs/{parent['id']}/clone", json={"data": {"path": "/nowhere"}})

    assert job["lineage"] == {"job": parent["id"], "action": "clone"}
    fresh = http.post("/v1/jobs", json=stock.body(data, training={"epochs": 9, "learning_rate": 0.02}, seed=5)).json()
    assert job["request"] == fresh["request"]
    assert (job["supernet"], job["data"]["fingerprint"]) == (None, parent["data"]["fingerprint"])
    assert (refusal.status_code, refusal.json()["errors"][0]["field"]) == (422, "data.path")


def test_job_that_is_over_is_deleted_and_a_running_one_is_not(http: TestClient, database: Database) -> None:
    parent = finished(database)
    running = stock.add_running(database)

    assert http.delete(f"/v1/jobs/{parent}").status_code == 204
    assert http.get(f"/v1/jobs/{parent}").status_code == 404
    refusal = http.delete(f"/v1/jobs/{running.job_id}")
    assert (refusal.status_code, refusal.json()["accepted"]) == (409, ["cancelled", "failed", "succeeded"])


def test_clone_takes_every_field_of_a_submission(http: TestClient, data: Path, backbone: str) -> None:
    gpus = {"worker": {"gpus": 0.5}, "evaluator": {"gpus": 0.25}}
    parent = http.post("/v1/jobs", json=stock.body(data, training={"use_gpu": True}, resources=gpus)).json()

    job = http.post(f"/v1/jobs/{parent['id']}/clone", json={"resources": {"evaluator": {"gpus": 0.1}}}).json()
    on_cpu = http.post(
        f"/v1/jobs/{parent['id']}/clone", json={"training": {"use_gpu": False}, "resources": {"worker": {}, "evaluator": {}}}
    ).json()

    assert job["request"]["resources"] == parent["request"]["resources"] | {"evaluator": {"cpus": None, "gpus": 0.1}}
    assert on_cpu["request"]["training"]["use_gpu"] is False
    assert set(CloneRequest.model_fields) == set(JobRequest.model_fields)


def test_finals_that_the_effort_gave_follow_the_training_of_a_clone_and_others_stay(http: TestClient, data: Path, backbone: str) -> None:
    training = {"learning_rate": 3e-4, "epochs": 5}
    left = http.post("/v1/jobs", json=stock.body(data, training={}, finals={})).json()
    said = http.post("/v1/jobs", json=stock.body(data, training={}, finals={"epochs": [7, 70]})).json()

    clones = [http.post(f"/v1/jobs/{parent['id']}/clone", json={"training": training}).json() for parent in (left, said)]

    fresh = http.post("/v1/jobs", json=stock.body(data, training=training, finals={})).json()
    assert clones[0]["request"]["finals"] == fresh["request"]["finals"] != left["request"]["finals"]
    assert clones[1]["request"]["finals"] == fresh["request"]["finals"] | {"epochs": [7, 70]}


def test_clone_may_lift_a_bound(http: TestClient, data: Path, backbone: str) -> None:
    parent = http.post("/v1/jobs", json=stock.body(data, max_hours=1.0)).json()

    kept, lifted = (http.post(f"/v1/jobs/{parent['id']}/clone", json=changes).json() for changes in ({}, {"max_hours": None}))

    assert (kept["request"]["max_hours"], lifted["request"]["max_hours"]) == (1.0, None)


@pytest.mark.parametrize("action", ["extend", "fork", "clone"])
def test_job_made_from_another_is_made_once_under_a_key(
    action: str, http: TestClient, data: Path, backbone: str, database: Database
) -> None:
    parent = http.post("/v1/jobs", json=stock.body(data)).json()["id"] if action == "clone" else finished(database)
    asked: dict[str, Any] = {"generations": 3} if action == "extend" else {"name": "again"}
    key = {"Idempotency-Key": "7b9e"}

    first, again = (http.post(f"/v1/jobs/{parent}/{action}", json=asked, headers=key) for _ in range(2))
    other = http.post(f"/v1/jobs/{parent}/{action}", json=asked | {"name": "other"}, headers=key)

    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 422)
    assert (again.json(), again.headers["location"]) == (first.json(), first.headers["location"])
    assert (other.json()["type"], other.json()["job"]) == ("urn:glora:problem:idempotency-key-reused", first.json()["id"])
    assert len(http.get(f"/v1/jobs/{parent}").json()["children"]) == 1
