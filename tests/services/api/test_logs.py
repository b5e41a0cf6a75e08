"""GET /v1/jobs/{id}/logs, and what a job's JSON, its page and `glora logs` tell of failed attempts."""

import pytest
from starlette.testclient import TestClient

from services.client import Client, ServiceError
from services.store import job_logs, jobs
from services.store.database import Database
from services.store.jobs import Lease
from services.store.retries import RetryRules
from tests.services.api import stock
from tests.services.api.listening import Listening
from tests.services.store.rows import change_job


def keep(database: Database, lease: Lease, text: str, size: int | None = None) -> None:
    """Store a log as a scheduler does."""
    with database.write() as session:
        job_logs.keep(session, lease, text, len(text) if size is None else size)


def lose_worker(database: Database, lease: Lease) -> None:
    """Fail an attempt for what may pass."""
    with jobs.fenced(database, lease) as (session, job):
        jobs.attempt_failed(session, job, RetryRules(first_seconds=600, longest_seconds=600), "worker_lost", "gone <away>")


@pytest.fixture
def twice(database: Database) -> str:
    """A job with the logs of two runs."""
    lease = stock.add_running(database)
    keep(database, lease, "one\ntwo\n", 70_008)
    change_job(database, lease.job_id, lease_epoch=2)
    keep(database, Lease(lease.job_id, lease.owner, 2), "three\n")
    return lease.job_id


def test_log_is_text_with_a_line_that_opens_each_run(http: TestClient, twice: str) -> None:
    answer = http.get(f"/v1/jobs/{twice}/logs")

    lines = answer.text.splitlines()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert lines[1:3] == ["one", "two"] and lines[4:] == ["three"]
    assert lines[0].startswith("--- run 1, until 20") and lines[0].endswith("UTC, the first 70,000 bytes left out")
    assert lines[3].startswith("--- run 2, until 20") and lines[3].endswith("UTC")


def test_only_the_last_lines_are_given_where_that_is_asked_for(http: TestClient, twice: str) -> None:
    assert http.get(f"/v1/jobs/{twice}/logs", params={"tail": 1}).text == "three\n"


@pytest.mark.parametrize("tail", ["0", "-1", "all", "100001"])
def test_unusable_number_of_lines_is_refused(http: TestClient, twice: str, tail: str) -> None:
    answer = http.get(f"/v1/jobs/{twice}/logs", params={"tail": tail})

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "tail")


def test_log_of_a_job_that_never_ran_is_empty(http: TestClient, database: Database) -> None:
    answer = http.get(f"/v1/jobs/{stock.add_job(database)}/logs")

    assert (answer.status_code, answer.text) == (200, "")


def test_log_of_an_unknown_job_is_not_found(http: TestClient, server: Listening) -> None:
    assert http.get("/v1/jobs/j0/logs").status_code == 404
    with pytest.raises(ServiceError, match="no job 'j0'"):
        Client(server.url).logs("j0")


def test_client_reads_the_log(server: Listening, twice: str) -> None:
    assert Client(server.url).logs(twice, tail=1) == "three\n"


def test_waiting_job_tells_why_which_attempt_comes_and_when(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    lose_worker(database, lease)

    job = http.get(f"/v1/jobs/{lease.job_id}").json()

    assert job["retry"] == {"reason": "worker_lost", "message": "gone <away>", "attempt": 2, "of": 3}
    assert (job["state"], job["attempts"], job["failure"]) == ("queued", 1, None)
    assert job["next_try_at"] > job["created_at"]


@pytest.mark.parametrize("columns", [{"attempts": 0, "state": "running"}, {"state": "succeeded"}], ids=["progress", "over"])
def test_failed_attempt_is_forgotten_with_progress(http: TestClient, database: Database, columns: dict[str, object]) -> None:
    lease = stock.add_running(database)
    lose_worker(database, lease)
    change_job(database, lease.job_id, **columns)

    assert http.get(f"/v1/jobs/{lease.job_id}").json()["retry"] is None
    assert 'id="retry"' not in http.get(f"/jobs/{lease.job_id}").text


def test_page_tells_of_the_attempt_that_is_waited_for(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    lose_worker(database, lease)

    page = http.get(f"/jobs/{lease.job_id}").text

    assert "<dt>Attempt</dt><dd>2 of 3, <time" in page
    assert "A worker was lost: gone &lt;away&gt;" in page


def test_page_of_a_failed_job_links_its_log(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.fail(database, lease)

    assert f'<a id="failure-log" href="/v1/jobs/{lease.job_id}/logs">' in http.get(f"/jobs/{lease.job_id}").text
