"""The dashboard's pages of studies as they are served: trials side by side, links both ways, and what there is when there is nothing."""

import json
import re
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from services.store import jobs, study_leases, study_progress
from services.store.database import Database
from services.store.queue import Quotas
from services.store.retries import RetryRules
from services.store.study_leases import StudyLease
from services.store.study_progress import FITNESS, PROBE, Report
from tests.services.api import stock


def add_study(http: TestClient, data: Path, sweep: dict[str, Any], **fields: Any) -> str:
    answer = http.post("/v1/studies", json={"name": "rates", "base": stock.body(data), "sweep": sweep} | fields)
    assert answer.status_code == 201, answer.json()
    return str(answer.json()["id"])


def drive(database: Database) -> StudyLease:
    with database.write() as session:
        lease = study_leases.claim(session, "driver", 600, RetryRules())
    assert lease is not None
    return lease


def submit(database: Database, lease: StudyLease, number: int) -> str:
    with study_leases.fenced(database, lease) as (session, study):
        return study_progress.submit(session, study, number, Quotas())


def record(database: Database, lease: StudyLease, report: Report, stop: str | None = None) -> None:
    with study_leases.fenced(database, lease) as (session, study):
        study_progress.record(session, study, report, stop)


def chart_data(page: str) -> dict[str, Any]:
    """What the page's script starts from."""
    found = re.search(r'<div id="study-data"[^>]*><script type="application/json">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def row(page: str, number: int) -> str:
    """A trial's row of the table, without tags."""
    found = re.search(rf'<tr id="trial-{number}".*?</tr>', page, re.DOTALL)
    assert found is not None
    return " ".join(re.sub("<[^>]*>", " ", found[0]).split())


def test_without_studies_the_list_says_how_to_submit_one(http: TestClient) -> None:
    page = http.get("/studies").text

    assert "No studies yet" in page and "glora study submit" in page


def test_list_shows_how_far_each_study_is(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    study_id = add_study(http, data, {"search.population": {"values": [4, 6]}})
    submit(database, drive(database), 1)
    stock.succeed(database, stock.claim(database))

    page = http.get("/studies").text

    assert f'href="/studies/{study_id}"' in page and "1 of 2 trials done" in page and "search.population" in page


def test_older_studies_are_a_page_further(http: TestClient, data: Path, backbone: str) -> None:
    ids = [add_study(http, data, {"seed": {"values": [1]}}) for _ in range(51)]

    page = http.get("/studies").text
    older = re.search(r'id="older" href="([^"]*)"', page)

    assert older is not None and ids[0] not in page
    assert ids[0] in http.get(older[1]).text
    assert http.get("/studies?before=s0").status_code == 404


def test_page_shows_trials_side_by_side_and_links_their_jobs(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    study_id = add_study(http, data, {"training.learning_rate": {"values": [0.01, 1e-5, 1.0]}})
    lease = drive(database)
    won = submit(database, lease, 1)
    runner = stock.claim(database)
    record(database, lease, Report(1, PROBE, 8, 0.5))
    record(database, lease, Report(1, FITNESS, 0, 0.25))
    stock.succeed(database, runner)
    stopped = submit(database, lease, 2)
    runner = stock.claim(database)
    record(database, lease, Report(2, PROBE, 8, 2.5), "2.5 is too much")
    with jobs.fenced(database, runner) as (session, job):
        jobs.cancelled(session, job)

    page = http.get(f"/studies/{study_id}").text

    assert row(page, 1).startswith(f"1 0.01 succeeded best {won} 87.5% 81.2% 640")
    assert row(page, 2).startswith(f"2 1e-05 stopped epoch 8 {stopped} –")
    assert row(page, 3).startswith("3 1.0 waiting – –")
    assert "2 of 3 trials done" in page and "1 waiting, 1 succeeded, 1 stopped" in page
    assert f'href="/jobs/{won}"' in page and 'title="2.5 is too much"' in page
    drawn = chart_data(page)
    assert drawn["probes"] == {"1": [[8, 0.5]], "2": [[8, 2.5]]}
    assert drawn["fitness"] == {"1": [[1, 0.25]]}
    assert (drawn["best"], drawn["settled"]) == (1, False)


def test_page_of_a_job_links_back_to_its_study_and_says_why_it_was_stopped(
    http: TestClient, data: Path, backbone: str, database: Database
) -> None:
    study_id = add_study(http, data, {"search.population": {"values": [4, 6]}})
    lease = drive(database)
    job_id = submit(database, lease, 2)
    record(database, lease, Report(2, PROBE, 8, 2.5), "2.5 is too much")

    page = http.get(f"/jobs/{job_id}").text

    assert f'trial 2 of <a id="study" href="/studies/{study_id}">' in page
    assert page.count(f"stopped early by study {study_id}: 2.5 is too much") == 2  # among the facts, and in the log


def test_what_a_study_asks_for_is_shown_as_text(http: TestClient, data: Path, backbone: str) -> None:
    sweep = {"training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "data.path": {"values": [str(data)]}}
    base = stock.body(data, name="<script>alert(1)</script>")
    study_id = add_study(http, data, sweep, base=base, name="<i>rates</i>", samples=3)

    page = http.get(f"/studies/{study_id}").text

    assert "0.0001 to 0.1, drawn in the logarithm" in page
    assert "&lt;i&gt;rates&lt;/i&gt;" in page
    assert "<i>rates" not in page and "<script>alert" not in page


def test_page_of_a_study_that_failed_says_why(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    study_id = add_study(http, data, {"search.population": {"values": [4]}})
    lease = drive(database)
    submit(database, lease, 1)
    stock.fail(database, stock.claim(database))
    with study_leases.fenced(database, lease) as (session, study):
        assert study_progress.conclude(session, study)

    page = http.get(f"/studies/{study_id}").text

    assert "The study failed" in page and "none of its trials has succeeded (1 failed)" in page
    assert 'id="delete"' in page and 'id="cancel"' not in page


def test_unknown_study_has_a_page_that_says_so(http: TestClient) -> None:
    answer = http.get("/studies/s0")

    assert (answer.status_code, "No such study" in answer.text) == (404, True)
