"""Looking at jobs: lists, pages, cancelling, generations and evaluations."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from services.store.database import Database
from tests.services.api import stock

PROBLEM = "application/problem+json"


def pages(http: TestClient, path: str, limit: int, **params: Any) -> list[list[dict[str, Any]]]:
    """The rows of all pages of a list, until it names no next one."""
    found, cursor = [], None
    while len(found) < 50:
        page = http.get(path, params=params | {"limit": limit} | ({"cursor": cursor} if cursor else {})).json()
        found.append(page["items"])
        cursor = page["next"]
        if cursor is None:
            return found
    pytest.fail("the list has no last page")


def test_list_of_no_jobs_is_one_empty_page(http: TestClient) -> None:
    assert http.get("/v1/jobs").json() == {"items": [], "next": None}


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 500])
def test_pages_of_jobs_hold_every_job_once_newest_first(limit: int, http: TestClient, database: Database) -> None:
    created = [stock.add_job(database, f"job {number}") for number in range(5)]

    found = pages(http, "/v1/jobs", limit)

    assert [row["id"] for page in found for row in page] == created[::-1]
    assert max(len(page) for page in found) == min(limit, 5)


def test_job_submitted_between_two_pages_moves_no_row(http: TestClient, database: Database) -> None:
    created = [stock.add_job(database) for _ in range(4)]
    first = http.get("/v1/jobs", params={"limit": 2}).json()
    stock.add_job(database, "late")

    second = http.get("/v1/jobs", params={"limit": 2, "cursor": first["next"]}).json()

    assert [row["id"] for row in first["items"] + second["items"]] == created[::-1]


def test_list_can_be_narrowed_to_a_state(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.fail(database, lease)
    running = stock.add_running(database)
    stock.add_job(database)

    failed = http.get("/v1/jobs", params={"state": "failed"}).json()["items"]
    going = http.get("/v1/jobs", params={"state": "running"}).json()["items"]

    assert [(row["id"], row["failure_reason"]) for row in failed] == [(lease.job_id, "data_invalid")]
    assert [row["id"] for row in going] == [running.job_id]


def test_filter_applies_to_every_page(http: TestClient, database: Database) -> None:
    ended = []
    for _ in range(3):
        lease = stock.add_running(database)
        stock.fail(database, lease)
        ended.append(lease.job_id)
    stock.add_running(database)

    found = pages(http, "/v1/jobs", 2, state="failed")

    assert [row["id"] for page in found for row in page] == ended[::-1]


@pytest.mark.parametrize(
    ("query", "field"),
    [("state=stuck", "state"), ("limit=0", "limit"), ("limit=501", "limit"), ("limit=-1", "limit"), ("limit=many", "limit")],
)
def test_unusable_query_of_the_list_is_refused(query: str, field: str, http: TestClient) -> None:
    response = http.get(f"/v1/jobs?{query}")

    assert response.status_code == 422
    assert response.headers["content-type"] == PROBLEM
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/j000"),
        ("POST", "/v1/jobs/j000/cancel"),
        ("GET", "/v1/jobs/j000/generations"),
        ("GET", "/v1/jobs/j000/evaluations"),
        ("GET", "/v1/jobs/j000/artifacts"),
        ("GET", "/v1/jobs/j000/events"),
        ("GET", "/v1/artifacts/a000"),
        ("GET", "/v1/artifacts/a000/content"),
        ("GET", "/v1/nothing"),
        ("GET", "/v1/jobs/a%00b"),
        ("GET", "/v1/jobs/' OR 1=1 --"),
    ],
)
def test_unknown_thing_is_a_not_found_problem(method: str, path: str, http: TestClient) -> None:
    response = http.request(method, path)

    document = response.json()
    assert (response.status_code, response.headers["content-type"]) == (404, PROBLEM)
    assert (document["type"], document["status"]) == ("urn:glora:problem:not-found", 404)


def test_wrong_method_is_a_problem_that_names_the_allowed_ones(http: TestClient) -> None:
    response = http.delete("/v1/jobs")

    assert (response.status_code, response.headers["content-type"]) == (405, PROBLEM)
    assert response.headers["allow"]


def test_queued_job_is_cancelled_at_once(http: TestClient, database: Database) -> None:
    job_id = stock.add_job(database)

    response = http.post(f"/v1/jobs/{job_id}/cancel")

    assert (response.status_code, response.json()["state"]) == (202, "cancelled")
    assert response.json()["finished_at"] is not None


def test_running_job_goes_on_until_its_runner_sees_the_cancellation(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)

    response = http.post(f"/v1/jobs/{lease.job_id}/cancel")

    assert (response.status_code, response.json()["state"], response.json()["cancel_requested"]) == (202, "running", True)


def test_asking_twice_for_a_cancellation_is_noted_once(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)

    answers = [http.post(f"/v1/jobs/{lease.job_id}/cancel").status_code for _ in range(2)]

    log = http.get(f"/v1/jobs/{lease.job_id}/events", headers={"Accept": "application/json"}).json()
    assert answers == [202, 202]
    assert [event["kind"] for event in log].count("cancel_requested") == 1


def test_job_that_is_over_cannot_be_cancelled(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.succeed(database, lease)
    before = stock.counts(database)

    response = http.post(f"/v1/jobs/{lease.job_id}/cancel")

    assert (response.status_code, response.headers["content-type"]) == (409, PROBLEM)
    assert response.json()["type"] == "urn:glora:problem:wrong-state"
    assert "succeeded" in response.json()["detail"]
    assert stock.counts(database) == before


def test_failed_job_shows_reason_message_and_traceback(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.fail(database, lease, "image 'x.png' cannot be decoded")

    job = http.get(f"/v1/jobs/{lease.job_id}").json()

    assert job["state"] == "failed"
    assert job["failure"] == {"reason": "data_invalid", "message": "image 'x.png' cannot be decoded", "detail": "Traceback"}


def test_succeeded_job_shows_its_result_and_no_failure(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.succeed(database, lease)

    job = http.get(f"/v1/jobs/{lease.job_id}").json()

    assert (job["state"], job["failure"]) == ("succeeded", None)
    assert job["result"] == stock.RESULT


def test_searching_job_shows_the_best_so_far(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.add_search(database, lease, generations=3, population=2)

    job = http.get(f"/v1/jobs/{lease.job_id}").json()

    assert job["generations_done"] == 3
    assert (job["best"]["generation"], job["best"]["accuracy"]) == (2, 0.04)


def test_search_for_another_metric_shows_its_fitness_beside_accuracy(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database, search={"metric": "MulticlassF1Score"})
    stock.add_search(database, lease, generations=2, population=2, metric="MulticlassF1Score")

    best, generations, rows = (
        http.get(f"/v1/jobs/{lease.job_id}").json()["best"],
        http.get(f"/v1/jobs/{lease.job_id}/generations").json()["items"],
        http.get(f"/v1/jobs/{lease.job_id}/evaluations").json()["items"],
    )

    assert (best["accuracy"], best["fitness"]) == (0.03, 0.015)
    assert [(row["best_accuracy"], row["best_fitness"]) for row in generations] == [(0.02, 0.01), (0.03, 0.015)]
    assert [(row["accuracy"], row["fitness"], row["macro_accuracy"]) for row in rows[:2]] == [(0.01, 0.005, 0.0025), (0.02, 0.01, 0.005)]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 500])
def test_pages_of_generations_hold_every_generation_once_in_order(limit: int, http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.add_search(database, lease, generations=6, population=1)

    found = pages(http, f"/v1/jobs/{lease.job_id}/generations", limit)

    assert [row["number"] for page in found for row in page] == list(range(6))


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 500])
def test_pages_of_evaluations_hold_every_candidate_once_in_order(limit: int, http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.add_search(database, lease, generations=3, population=4)

    found = pages(http, f"/v1/jobs/{lease.job_id}/evaluations", limit)

    rows = [row for page in found for row in page]
    assert [(row["generation"], row["position"]) for row in rows] == [(g, p) for g in range(3) for p in range(4)]
    assert [row["accuracy"] for row in rows] == [(g + p + 1) / 100 for g in range(3) for p in range(4)]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_evaluations_of_one_generation_are_paged_on_their_own(limit: int, http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.add_search(database, lease, generations=3, population=4)

    found = pages(http, f"/v1/jobs/{lease.job_id}/evaluations", limit, generation=1)

    assert [(row["generation"], row["position"]) for page in found for row in page] == [(1, p) for p in range(4)]


def test_evaluations_of_another_job_with_the_same_configs_are_not_mixed_in(http: TestClient, database: Database) -> None:
    first, second = stock.add_running(database), stock.add_running(database)
    stock.add_search(database, first, generations=1, population=3)
    stock.add_search(database, second, generations=2, population=3)

    rows = http.get(f"/v1/jobs/{first.job_id}/evaluations").json()["items"]

    assert len(rows) == 3


def test_job_that_has_not_searched_has_neither_generations_nor_evaluations(http: TestClient, database: Database) -> None:
    job_id = stock.add_job(database)

    assert http.get(f"/v1/jobs/{job_id}/generations").json() == {"items": [], "next": None}
    assert http.get(f"/v1/jobs/{job_id}/evaluations").json() == {"items": [], "next": None}


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1-2", "1.5", "1 "])
def test_cursor_that_the_generations_never_gave_is_refused(cursor: str, http: TestClient, database: Database) -> None:
    response = http.get(f"/v1/jobs/{stock.add_job(database)}/generations", params={"cursor": cursor})

    assert (response.status_code, response.headers["content-type"]) == (422, PROBLEM)
    assert response.json()["errors"][0]["field"] == "cursor"


@pytest.mark.parametrize("cursor", ["", "x", "1", "1-", "-1-1", "1-2-3", "a-b"])
def test_cursor_that_the_evaluations_never_gave_is_refused(cursor: str, http: TestClient, database: Database) -> None:
    response = http.get(f"/v1/jobs/{stock.add_job(database)}/evaluations", params={"cursor": cursor})

    assert (response.status_code, response.headers["content-type"]) == (422, PROBLEM)
    assert response.json()["errors"][0]["field"] == "cursor"


def test_cursor_with_a_digit_that_is_no_number_is_refused(http: TestClient, database: Database) -> None:
    response = http.get(f"/v1/jobs/{stock.add_job(database)}/generations", params={"cursor": "²"})

    assert response.status_code == 422


@pytest.mark.parametrize("query", ["generations?cursor=1{}", "evaluations?cursor=0-1{}", "evaluations?generation=1{}", "events?after=1{}"])
def test_number_beyond_64_bits_is_refused(query: str, http: TestClient, database: Database) -> None:
    path = f"/v1/jobs/{stock.add_job(database)}/" + query.format("0" * 30)

    response = http.get(path, headers={"Accept": "application/json"})

    assert response.status_code == 422


def test_cursor_that_the_list_of_jobs_never_gave_is_refused(http: TestClient) -> None:
    response = http.get("/v1/jobs", params={"cursor": "nonsense"})

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "cursor"


def test_unexpected_error_is_a_problem_document_too(http: TestClient) -> None:
    def broken() -> None:
        raise RuntimeError("a defect")

    http.app.add_api_route("/v1/broken", broken)  # type: ignore[attr-defined]

    response = http.get("/v1/broken")

    assert (response.status_code, response.headers["content-type"]) == (500, PROBLEM)
