"""The routes of studies: what is created, what is refused and by which field, and what is shown of trials side by side."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from services import job_data
from services.settings import Settings
from services.store import studies, study_leases, study_progress
from services.store.database import Database
from services.store.models import Study, StudyTrial
from services.store.queue import Quotas
from services.store.retries import RetryRules
from services.store.study_leases import StudyLease
from services.store.study_progress import PROBE, Report
from services.study_points import draw
from services.study_request import StudyRequest
from tests.services.api import stock

GRID = {"search.population": {"values": [4, 6]}, "search.mutation_probability": {"low": 0.1, "high": 0.5}}


def body(data: Path | str, **changes: Any) -> dict[str, Any]:
    return {"base": stock.body(data), "sweep": GRID, "samples": 2} | changes


def counts(database: Database) -> tuple[int, ...]:
    """Stored studies, trials and jobs."""
    with database.read() as session:
        rows = tuple(session.scalar(select(func.count()).select_from(model)) or 0 for model in (Study, StudyTrial))
    return (*rows, stock.counts(database)[0])


def drive(database: Database, study_id: str) -> StudyLease:
    with database.write() as session:
        lease = study_leases.claim(session, "driver", 600, RetryRules())
    assert lease is not None and lease.study_id == study_id
    return lease


def submit(database: Database, lease: StudyLease, number: int) -> str:
    with study_leases.fenced(database, lease) as (session, study):
        return study_progress.submit(session, study, number, Quotas())


def test_study_is_created_with_its_trials_and_no_job_yet(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    answer = http.post("/v1/studies", json=body(data, name="sizes"))

    study = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/studies/{study['id']}")
    assert (study["name"], study["user"], study["state"], study["metric"], study["best"]) == (
        "sizes",
        "default",
        "queued",
        "accuracy",
        None,
    )
    assert study["swept"] == list(GRID)
    assert [trial["settings"]["search.population"] for trial in study["trials"]] == [4, 6, 4, 6]
    assert {trial["state"] for trial in study["trials"]} == {"waiting"}
    assert (study["counts"]["all"], study["counts"]["done"], study["counts"]["waiting"]) == (4, 0, 4)
    assert counts(database) == (1, 4, 0)
    assert http.get(f"/v1/studies/{study['id']}").json() == study


def test_study_without_a_name_has_its_datas(http: TestClient, data: Path, backbone: str) -> None:
    assert http.post("/v1/studies", json=body(data, base=stock.body(data, name=""))).json()["name"] == "flowers"


def test_same_request_under_the_same_key_is_the_same_study(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    key = {"Idempotency-Key": "7b9e"}
    first = http.post("/v1/studies", json=body(data), headers=key)
    again = http.post("/v1/studies", json=body(data), headers=key)
    other = http.post("/v1/studies", json=body(data, samples=1), headers=key)

    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 422)
    assert again.json() == first.json()
    assert (other.json()["type"], other.json()["study"]) == ("urn:glora:problem:idempotency-key-reused", first.json()["id"])
    assert counts(database) == (1, 4, 0)


@pytest.mark.parametrize(
    ("changes", "kind", "field", "said"),
    [
        pytest.param({"sweep": {"search.populaton": {"values": [4]}}}, "request-invalid", "sweep.search.populaton", "accepted", id="name"),
        pytest.param(
            {"sweep": {"budget": {"values": [700, 10]}}}, "budget-infeasible", "sweep.budget", "trial 2 (budget = 10)", id="budget"
        ),
        pytest.param(
            {"sweep": {"search.population": {"values": [4, 0]}}}, "request-invalid", "sweep.search.population", "trial 2", id="value"
        ),
        pytest.param({"base": stock.body("/no/such")}, "data-invalid", "base.data.path", "trial 1 (search.population = 4", id="data"),
        pytest.param({"base": {"budget": 700}}, "request-invalid", "base.backbone", "Field required", id="part left out"),
        pytest.param({"max_trials": 3}, "request-invalid", "max_trials", "has 4 trials, max_trials is 3", id="too many"),
        pytest.param({"sweep": {"seed": {"low": 1}}}, "request-invalid", "sweep.seed.range.high", "Field required", id="half a range"),
    ],
)
def test_study_of_which_a_trial_cannot_run_is_refused_whole(
    changes: dict[str, Any], kind: str, field: str, said: str, http: TestClient, data: Path, backbone: str, database: Database
) -> None:
    request = body(data) | changes
    if "budget" in request["sweep"]:
        request["base"] |= {"space": {"preset": "lora-2"}}
    request["samples"] = request["samples"] if request["sweep"] == GRID else 1

    answer = http.post("/v1/studies", json=request)

    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (422, f"urn:glora:problem:{kind}")
    assert field in [error["field"] for error in problem["errors"]]
    assert said in problem["detail"]
    assert counts(database) == (0, 0, 0)


def test_grace_that_no_training_outlasts_is_refused(http: TestClient, data: Path, backbone: str) -> None:
    base = stock.body(data, training={"epochs": 10})
    sweep = {"training.learning_rate": {"values": [0.1, 0.01]}}
    stop = {"rule": "asha", "grace_epochs": 10}

    problem = http.post("/v1/studies", json={"base": base, "sweep": sweep, "early_stop": stop}).json()

    assert [error["field"] for error in problem["errors"]] == ["early_stop.grace_epochs"]


def test_study_of_a_user_with_a_full_queue_is_refused(
    http: TestClient, settings: Settings, data: Path, backbone: str, database: Database
) -> None:
    http.app.state.settings = settings.model_copy(update={"user_queued_jobs": 1})  # type: ignore[attr-defined]
    stock.add_job(database)

    assert http.post("/v1/studies", json=body(data)).status_code == 429
    assert counts(database) == (0, 0, 1)


def test_studies_that_wait_to_begin_are_counted_like_queued_jobs(
    http: TestClient, settings: Settings, data: Path, backbone: str, database: Database
) -> None:
    http.app.state.settings = settings.model_copy(update={"user_queued_jobs": 1})  # type: ignore[attr-defined]
    assert http.post("/v1/studies", json=body(data)).status_code == 201

    problem = http.post("/v1/studies", json=body(data)).json()

    assert (problem["status"], problem["quota"], problem["limit"], problem["used"]) == (429, "queued_studies", 1, 1)


def test_trials_are_shown_side_by_side_with_what_they_reached(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    study_id = http.post("/v1/studies", json=body(data)).json()["id"]
    lease = drive(database, study_id)
    done = submit(database, lease, 1)
    runner = stock.claim(database)
    stock.add_search(database, runner, generations=2, population=3)
    stock.succeed(database, runner)
    running = submit(database, lease, 2)
    stock.add_search(database, stock.claim(database), generations=1, population=2)
    with study_leases.fenced(database, lease) as (session, study):
        study_progress.record(session, study, Report(2, PROBE, 5, 1.5), "too slow")

    study = http.get(f"/v1/studies/{study_id}").json()

    first, second, *others = study["trials"]
    assert (first["state"], first["job"], first["best"], first["parameters"]) == ("succeeded", done, 0.875, 640)
    assert (first["test_accuracy"], first["searched"], first["asked"], first["evaluated"]) == (0.8125, 0.04, 6, 6)
    assert (second["state"], second["job"], second["best"], second["generations"]) == ("stopped", running, 0.02, 1)
    assert (second["stopped_at"], second["stopped_why"]) == (5, "too slow")
    assert {trial["state"] for trial in others} == {"waiting"}
    assert (study["state"], study["best"], study["counts"]["done"]) == ("running", 1, 2)
    assert http.get(f"/v1/studies/{study_id}/reports").json()["items"] == [{"trial": 2, "kind": "probe", "step": 5, "value": 1.5}]
    job = http.get(f"/v1/jobs/{running}").json()
    assert job["study"] == {"id": study_id, "trial": 2}
    assert job["cancel_reason"] == f"stopped early by study {study_id}: too slow"
    assert [row["study_id"] for row in http.get("/v1/jobs").json()["items"]] == [study_id] * 2


def test_studies_are_listed_in_pages(http: TestClient, data: Path, backbone: str) -> None:
    ids = [http.post("/v1/studies", json=body(data)).json()["id"] for _ in range(3)]

    page = http.get("/v1/studies?limit=2").json()
    rest = http.get("/v1/studies", params={"cursor": page["next"]}).json()

    assert [row["id"] for row in page["items"] + rest["items"]] == ids[::-1]
    assert page["items"][0]["counts"]["all"] == 4
    assert http.get("/v1/studies?cursor=nothing").status_code == 422
    assert http.get("/v1/studies?state=running").json()["items"] == []


def test_cancelled_study_ends_with_its_jobs_and_can_be_deleted(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    study_id = http.post("/v1/studies", json=body(data)).json()["id"]
    job_id = submit(database, drive(database, study_id), 1)
    assert http.delete(f"/v1/studies/{study_id}").status_code == 409

    cancelled = http.post(f"/v1/studies/{study_id}/cancel")

    assert (cancelled.status_code, cancelled.json()["state"], cancelled.json()["counts"]["done"]) == (202, "cancelled", 4)
    assert http.get(f"/v1/jobs/{job_id}").json()["cancel_reason"] == f"study {study_id} was cancelled"
    assert http.post(f"/v1/studies/{study_id}/cancel").status_code == 409
    assert http.delete(f"/v1/studies/{study_id}").status_code == 204
    assert http.get(f"/v1/studies/{study_id}").status_code == 404
    assert http.get(f"/v1/jobs/{job_id}").json()["study"] is None


def test_failed_study_says_why(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    study_id = http.post("/v1/studies", json=body(data)).json()["id"]
    with database.write() as session:
        study_leases.finish(session, studies.get(session, study_id), "failed", "no_trial_succeeded", "none has")

    assert http.get(f"/v1/studies/{study_id}").json()["failure"] == {"reason": "no_trial_succeeded", "message": "none has"}


@pytest.mark.parametrize("path", ["", "/reports"])
def test_unknown_study_is_not_found(path: str, http: TestClient) -> None:
    assert http.get(f"/v1/studies/s0{path}").status_code == 404


def test_job_that_a_person_cancelled_has_no_reason(http: TestClient, database: Database) -> None:
    job_id = stock.add_job(database)

    job = http.post(f"/v1/jobs/{job_id}/cancel").json()

    assert (job["state"], job["cancel_reason"], job["study"]) == ("cancelled", None, None)


def test_data_is_read_once_for_all_seeds_that_draw_shots_of_it(
    http: TestClient, data: Path, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[str] = []
    really = job_data.scan
    monkeypatch.setattr(job_data, "scan", lambda path: scanned.append(path) or really(path))
    base = stock.body(data) | {"data": {"path": str(data), "shots": 1}}

    answer = http.post("/v1/studies", json={"base": base, "sweep": {"seed": {"values": list(range(6))}}})

    assert (answer.status_code, len(scanned)) == (201, 1)


@pytest.mark.parametrize("junk", ['"\\ud800"', "[" * 900 + "]" * 900], ids=["no text", "nested"])
def test_base_that_cannot_be_stored_is_refused(junk: str, http: TestClient, data: Path) -> None:
    body = f'{{"base": {{"name": {junk}}}, "sweep": {{"seed": {{"values": [1, 2]}}}}}}'

    answer = http.post("/v1/studies", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code in (400, 422)


def test_trials_are_made_from_the_base_without_copying_it() -> None:
    base = {"data": {"path": "/d"}, "colour": ["x"] * 1000}
    request = StudyRequest.model_validate({"base": base, "sweep": {"data.shots": {"values": [1, 2]}}})

    first, second = (trial.request for trial in draw(request))

    assert first["colour"] is second["colour"]
    assert (first["data"], second["data"], request.base["data"]) == ({"path": "/d", "shots": 1}, {"path": "/d", "shots": 2}, {"path": "/d"})
