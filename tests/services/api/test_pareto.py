"""The Pareto front of a job, and which second objectives a submission may ask for."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from services.dashboard.charts import chart_data
from services.protocol import PROTOCOL
from services.store import jobs, search_state
from services.store.database import Database
from services.store.models import Job
from services.store.search_state import evaluation_row
from tests.services.api import stock

KEY = "5ec0d" * 4


@pytest.fixture
def searched(database: Database, backbone: str) -> str:
    """A running job of two generations of three candidates; the better one is on val, the worse on the second objective's set."""
    lease = stock.add_running(database)
    stock.add_search(database, lease, 2, 3)
    with jobs.fenced(database, lease) as (session, job):
        for candidate in search_state.candidates(session, job.id):
            accuracy = 0.9 - 0.1 * candidate.generation
            row = evaluation_row(
                job.supernet_key or "",
                KEY[:16],
                PROTOCOL,
                "accuracy",
                candidate.config_hash,
                candidate.config,
                candidate.parameters,
                stock._fitness(accuracy, "accuracy"),
            )
            search_state.add_evaluations(session, [row])
    return lease.job_id


def with_second(database: Database, job_id: str) -> None:
    """The job as if it had been submitted with a second objective."""
    with database.write() as session:
        job = session.get_one(Job, job_id)
        job.request = job.request | {"search": job.request.get("search", {}) | {"strategy": "nsga2", "second": "sketch"}}
        job.data = job.data | {"also_test": {"sketch": {"parts": {"selection": {"fingerprint": KEY}}}}}


def dominated(one: tuple[float, ...], others: list[tuple[float, ...]]) -> bool:
    return any(other != one and all(a <= b for a, b in zip(one, other, strict=True)) for other in others)


@pytest.mark.parametrize("second", [False, True], ids=["two objectives", "three objectives"])
def test_front_is_what_no_candidate_dominates(second: bool, http: TestClient, searched: str, database: Database) -> None:
    if second:
        with_second(database, searched)
    every = http.get(f"/v1/jobs/{searched}/evaluations").json()["items"]
    there = {row["hash"]: 0.9 - 0.1 * row["generation"] for row in every}
    objectives = {row["hash"]: (row["fitness"], -row["parameters"], there[row["hash"]] if second else 0.0) for row in every}

    front = http.get(f"/v1/jobs/{searched}/pareto").json()

    values = list(objectives.values())
    assert {objectives[row["hash"]] for row in front["items"]} == {value for value in values if not dominated(value, values)}
    assert [row["second_accuracy"] for row in front["items"]] == [there[row["hash"]] if second else None for row in front["items"]]
    assert (front["metric"], front["second"]) == ("accuracy", "sketch" if second else None)
    with database.read() as session:
        charted = chart_data(session, jobs.get(session, searched)).front
    assert [point.parameters for point in charted] == ([row["parameters"] for row in front["items"]] if second else [])


def test_front_of_an_unknown_job_is_not_found(http: TestClient) -> None:
    assert http.get("/v1/jobs/none/pareto").status_code == 404


@pytest.fixture
def sketch(tmp_path: Path) -> Path:
    """Two classes of two images each that differ from the data's and from each other."""
    for number, name in enumerate(("daisy/0", "daisy/1", "tulip/0", "tulip/1")):
        path = tmp_path / "sketch" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (200, number, 7)).save(path)
    return tmp_path / "sketch"


def body(data: Path, sketch: Path, **search: Any) -> dict[str, Any]:
    return stock.body(data, search=search) | {"data": {"path": str(data), "also_test": {"sketch": str(sketch)}}}


def test_second_objective_is_accepted_with_the_sizes_of_both_parts(http: TestClient, data: Path, sketch: Path, backbone: str) -> None:
    response = http.post("/v1/jobs", json=body(data, sketch, strategy="nsga2", second="sketch"))

    assert response.status_code == 201, response.text
    parts = response.json()["data"]["also_test"]["sketch"]["parts"]
    assert (parts["selection"]["images"], parts["report"]["images"]) == (2, 2)
    assert parts["selection"]["fingerprint"] != parts["report"]["fingerprint"]


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"second": "sketch"}, "accepted with a second one is nsga2"),
        ({"strategy": "nsga2", "second": "other"}, "'other' is none of data.also_test; accepted is one of these: sketch"),
    ],
)
def test_second_objective_that_cannot_be_is_refused(
    search: dict[str, str], told: str, http: TestClient, data: Path, sketch: Path, backbone: str
) -> None:
    response = http.post("/v1/jobs", json=body(data, sketch, **search))

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "search.second")
    assert told in response.json()["detail"]


def test_set_too_small_for_two_parts_is_refused_as_a_second_objective_only(
    http: TestClient, data: Path, sketch: Path, backbone: str
) -> None:
    (sketch / "tulip" / "1.png").unlink()

    refused = http.post("/v1/jobs", json=body(data, sketch, strategy="nsga2", second="sketch"))

    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "search.second")
    assert "cannot be split in two" in refused.json()["detail"]
    assert http.post("/v1/jobs", json=body(data, sketch, strategy="nsga2")).status_code == 201
