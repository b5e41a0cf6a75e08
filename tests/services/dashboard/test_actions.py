"""The buttons of a job's page in a real browser, over a real API; no runner is needed for what they ask."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from services.client import Client
from services.store import jobs, lifecycle
from services.store.database import Database
from tests.services.api import stock
from tests.services.api.listening import Listening

pytestmark = [pytest.mark.slow, pytest.mark.browser]

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no Chromium was found; get one with `apt-get install chromium`")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, server: Listening) -> Iterator[Any]:
    """A page that fails the test on any script error; refused calls are none."""
    context = browser.new_context(base_url=server.url)
    context.set_default_timeout(60_000)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


@pytest.fixture
def finished(database: Database) -> str:
    """A succeeded job with a supernet and a generation."""
    lease = stock.add_running(database, search={"generations": 1})
    stock.add_search(database, lease, generations=1, population=2)
    stock.succeed(database, lease)
    return lease.job_id


def test_queued_job_is_paused_resumed_and_cancelled(page: Any, server: Listening, database: Database) -> None:
    job_id, client = stock.add_job(database), Client(server.url)
    page.goto(f"/jobs/{job_id}")

    page.click("#pause")
    page.wait_for_selector(".badge.paused")
    assert client.job(job_id)["state"] == "paused"
    page.click("#resume")
    page.wait_for_selector(".badge.queued")
    page.click("#cancel")
    page.click("#confirm-cancel button[value=keep]")
    assert client.job(job_id)["state"] == "queued"
    page.click("#cancel")
    page.click("#confirm-cancel button[value=do]")
    page.wait_for_selector(".badge.cancelled")


def test_finished_job_is_extended_and_the_new_jobs_page_names_it(page: Any, server: Listening, finished: str) -> None:
    page.goto(f"/jobs/{finished}")
    page.click("#extend")
    page.fill("#confirm-extend input[name=generations]", "4")
    page.press("#confirm-extend input[name=generations]", "Enter")

    page.wait_for_selector("#origin")
    made = Client(server.url).job(page.url.rpartition("/")[2])
    assert (made["request"]["search"]["generations"], made["lineage"]) == (5, {"job": finished, "action": "extend"})


def test_fork_takes_what_was_filled_in_and_shows_a_refusal(page: Any, server: Listening, finished: str) -> None:
    page.goto(f"/jobs/{finished}")
    page.click("#fork")
    page.fill("#confirm-fork input[name=budget]", "plenty")
    page.click("#confirm-fork button[value=do]")
    page.wait_for_selector("#trouble:not([hidden])")
    assert "could not be forked: budget: 'plenty'" in page.inner_text("#trouble")

    page.click("#fork")
    page.fill("#confirm-fork input[name=budget]", "0.5k")
    page.select_option("#confirm-fork select", "random")
    page.fill("#confirm-fork input[name=seed]", "9")
    page.click("#confirm-fork button[value=do]")
    page.wait_for_selector("#origin")

    request = Client(server.url).job(page.url.rpartition("/")[2])["request"]
    assert (request["budget"], request["search"]["strategy"], request["search"]["seed"]) == (500, "random", 9)


def test_job_is_deleted_from_its_page(page: Any, server: Listening, finished: str) -> None:
    page.goto(f"/jobs/{finished}")
    page.click("#delete")
    page.click("#confirm-delete button[value=do]")
    page.wait_for_selector("text=No jobs yet")

    assert Client(server.url).jobs() == []


def test_open_page_of_a_running_job_shows_that_it_was_paused_elsewhere(page: Any, database: Database) -> None:
    lease = stock.add_running(database)
    page.goto(f"/jobs/{lease.job_id}")
    page.wait_for_selector(".badge.running")

    with database.write() as session:
        lifecycle.request_pause(session, lease.job_id)
    with jobs.fenced(database, lease) as (session, job):
        jobs.paused(session, job)

    page.wait_for_selector(".badge.paused")
    page.wait_for_selector("#resume")
