"""The dashboard in a real browser, against a running service."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Service

pytestmark = [pytest.mark.slow, pytest.mark.browser]

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
MISSING = "no Chromium was found; get one with `apt-get install chromium`"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, service: Service) -> Iterator[Any]:
    """A signed-in page that fails the test on any script error."""
    context = browser.new_context(base_url=service.client.url)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    token = json.loads((service.home / "server.json").read_text())["token"]
    opened.goto(f"/?token={token}")
    yield opened
    context.close()
    assert errors == []


def test_visitor_without_the_token_is_asked_to_sign_in(browser: Any, service: Service) -> None:
    token = json.loads((service.home / "server.json").read_text())["token"]
    context = browser.new_context(base_url=service.client.url)
    page = context.new_page()
    assert page.goto("/").status == 401
    page.fill("input[name=token]", token)
    page.click("button[type=submit]")
    page.wait_for_selector("h1")
    assert page.url.rstrip("/") == service.client.url
    context.close()


def test_job_page_follows_a_job_to_its_checkpoint(page: Any, service: Service, request_body: dict[str, Any], tmp_path: Path) -> None:
    request_body["search"] |= {"generations": 30}
    request_body["seed"] = 77
    job = service.client.submit(request_body)
    page.goto(f"/jobs/{job['id']}")
    page.wait_for_selector(r"text=/[Gg]eneration \d+ of 30/", timeout=120_000)
    service.wait(job["id"])
    page.wait_for_selector("text=Download checkpoint", timeout=60_000)
    with page.expect_download() as download:
        page.click("text=Download checkpoint")
    target = tmp_path / "model.safetensors"
    download.value.save_as(target)
    assert target.stat().st_size > 1000
    assert page.locator("canvas:visible").count() == 4


def test_unknown_job_has_a_page_of_its_own(page: Any) -> None:
    assert page.context.request.get("/jobs/nope", headers={"accept": "text/html"}).status == 404


def test_api_reference_needs_no_other_host(page: Any, service: Service) -> None:
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.goto("/docs")
    page.wait_for_selector("text=Submit a job", timeout=30_000)
    assert hosts == {service.client.url.removeprefix("http://")}
