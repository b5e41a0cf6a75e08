"""Who may call: the token as header, cookie, link or login form, and the headers that every answer carries."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr
from starlette.testclient import TestClient

from services.api.app import create_app
from services.api.auth import session_value
from services.settings import Settings
from services.store.blobs import BlobStore
from services.store.database import Database
from tests.services.api import stock

TOKEN = "correct-horse"
OPEN = {"/healthz", "/readyz", "/login"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SESSION = {"Cookie": f"glora_session={session_value(TOKEN)}"}
BROWSER = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def settings(isolated: None, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", token=TOKEN)


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path of the application; parameters are filled in."""
    for route in iter_route_contexts(app.routes):
        if route.path is not None and route.methods:
            path = route.path.replace("{job_id}", "j000").replace("{artifact_id}", "a000").replace("{study_id}", "s000")
            assert "{" not in path
            yield from ((method, path) for method in sorted(route.methods))


def test_every_route_but_the_open_ones_refuses_a_caller_without_the_token(http: TestClient, app: FastAPI) -> None:
    closed = [(method, path) for method, path in routes(app) if path not in OPEN]

    answered = {route: http.request(*route).status_code for route in closed}

    assert ("POST", "/v1/jobs") in answered and ("GET", "/jobs/j000") in answered and ("GET", "/openapi.json") in answered
    assert {route: status for route, status in answered.items() if status != 401} == {}


def test_every_route_lets_the_token_through(http: TestClient, app: FastAPI) -> None:
    guarded = [(method, path) for method, path in routes(app) if path not in OPEN]

    answered = {route: http.request(*route, headers=BEARER).status_code for route in guarded}

    assert {route: status for route, status in answered.items() if status in (401, 403)} == {}


@pytest.mark.parametrize("path", ["/", "/jobs/j000", "/jobs/j000/live"])
def test_dashboard_shows_a_browser_the_login_form_instead(path: str, http: TestClient) -> None:
    response = http.get(path, headers=BROWSER)

    assert response.status_code == 401
    assert response.headers["content-type"].startswith("text/html")
    assert 'action="/login"' in response.text


def test_refused_program_is_told_how_to_send_the_token(http: TestClient) -> None:
    response = http.get("/v1/jobs")

    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in response.text


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {"Authorization": f"bearer {TOKEN}"},
        {"Authorization": f"Bearer  {TOKEN} "},
        SESSION,
        {"Cookie": f"other=1; {SESSION['Cookie']}"},
    ],
)
def test_token_is_accepted_as_header_and_as_cookie(headers: dict[str, str], http: TestClient) -> None:
    assert http.get("/v1/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer wrong", "Cookie": f"glora_session={TOKEN}"},
        {"Cookie": "glora_session=wrong"},
        {"Cookie": f"token={TOKEN}"},
        {"Authorization": "Bearer tökén".encode("latin-1")},
        {"Authorization": "Bearer 日本".encode()},
        {"Authorization": b"Bearer \xff\xfe\x80"},
        {"Cookie": 'glora_session="\\377\\303"'},
        {"Cookie": "glora_session=日本".encode()},
        {"Host": "x/healthz?"},
        {"Host": "x/static/"},
        {"X-Forwarded-Prefix": "/healthz"},
    ],
)  # fmt: skip
def test_anything_but_the_token_is_refused(headers: dict[str, Any], http: TestClient) -> None:
    assert http.get("/v1/jobs", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "path", ["/v1/jobs?token=wrong", "/?token=", "/v1/jobs?token=%ff%fe", "/v1/jobs?token=%E6%97%A5", "/?token=a&token=b"]
)
def test_link_with_a_wrong_token_is_refused(path: str, http: TestClient) -> None:
    response = http.get(path)

    assert response.status_code == 401
    assert "set-cookie" not in response.headers


def test_link_with_the_token_becomes_a_cookie_and_the_token_leaves_the_address(http: TestClient) -> None:
    response = http.get(f"/?state=failed&token={TOKEN}")

    cookie = response.headers["set-cookie"]
    assert response.status_code == 303
    assert response.headers["location"] == "/?state=failed"
    assert cookie.startswith(f"{SESSION['Cookie']};")
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and "Path=/" in cookie


def test_browser_that_followed_the_link_is_let_in_from_then_on(http: TestClient) -> None:
    first = http.get(f"/?token={TOKEN}", headers=BROWSER, follow_redirects=True)
    second = http.get("/", headers=BROWSER)

    assert (first.status_code, second.status_code) == (200, 200)


def test_token_leaves_the_address_of_a_browser_that_has_the_cookie_already(http: TestClient) -> None:
    assert http.get(f"/?token={TOKEN}", headers=SESSION).status_code == 303


@pytest.mark.parametrize(
    "origin",
    [{}, {"Origin": "http://127.0.0.1:9999"}, {"Origin": "http://testserver", "Sec-Fetch-Site": "same-site"}, {"Origin": "null"}],
)
def test_cookie_changes_nothing_for_a_page_that_is_not_ours(origin: dict[str, str], http: TestClient, database: Database) -> None:
    job_id = stock.add_job(database)

    response = http.post(f"/v1/jobs/{job_id}/cancel", headers=SESSION | origin)

    assert (response.status_code, response.json()["type"]) == (403, "urn:glora:problem:foreign-origin")
    assert http.get(f"/v1/jobs/{job_id}", headers=BEARER).json()["state"] == "queued"


@pytest.mark.parametrize("origin", [{"Origin": "http://testserver"}, {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}])
def test_cookie_changes_something_for_our_own_page(origin: dict[str, str], http: TestClient, database: Database) -> None:
    job_id = stock.add_job(database)

    assert http.post(f"/v1/jobs/{job_id}/cancel", headers=SESSION | origin).status_code == 202


def test_api_process_does_not_start_without_a_token(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GLORA_")}
    command = [sys.executable, "-m", "services.api"]
    run = subprocess.run(command, env=environment | {"GLORA_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60)

    assert run.returncode == 2
    assert "GLORA_TOKEN" in run.stderr


def test_token_in_the_address_does_not_authorise_a_change(http: TestClient, database: Database) -> None:
    job_id = stock.add_job(database)

    response = http.post(f"/v1/jobs/{job_id}/cancel?token={TOKEN}")

    assert response.status_code == 401
    assert http.get(f"/v1/jobs/{job_id}", headers=BEARER).json()["state"] == "queued"


def test_login_form_with_the_token_sets_the_cookie_and_opens_the_dashboard(http: TestClient) -> None:
    response = http.post("/login", data={"token": f" {TOKEN} "})

    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert "HttpOnly" in response.headers["set-cookie"] and "samesite=strict" in response.headers["set-cookie"].lower()
    assert http.get("/", headers=BROWSER).status_code == 200


@pytest.mark.parametrize(
    "form", [b"", b"token=", b"token=wrong", "token=日本".encode(), b"token=%ff%00", b"\xff\xfe", b"user=" + TOKEN.encode()]
)
def test_login_form_with_anything_else_is_shown_again(form: bytes, http: TestClient) -> None:
    response = http.post("/login", content=form, headers={"Content-Type": "application/x-www-form-urlencoded"})

    assert response.status_code == 401
    assert "set-cookie" not in response.headers
    assert 'action="/login"' in response.text
    assert "This is not the token" in response.text


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.test"}])
def test_page_of_another_site_signs_nobody_in(headers: dict[str, str], http: TestClient) -> None:
    response = http.post("/login", data={"token": TOKEN}, headers=headers)

    assert response.status_code == 403
    assert "set-cookie" not in response.headers


def test_link_on_a_page_of_another_site_does_not_make_a_user_another(settings: Settings) -> None:
    known = {"token": SecretStr(TOKEN), "users": {"eve": SecretStr("eves")}}
    http = TestClient(create_app(settings.model_copy(update=known)), follow_redirects=False)
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert "set-cookie" in http.get(f"/?token={TOKEN}", headers=foreign).headers

    response = http.get("/?token=eves", headers=foreign)

    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert "set-cookie" not in response.headers
    assert "set-cookie" in http.get("/?token=eves", headers={"Sec-Fetch-Site": "none"}).headers


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_checks_need_no_token(path: str, http: TestClient) -> None:
    response = http.get(path)

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/static/../v1/jobs", "/static/%2e%2e/v1/jobs", "//v1/jobs", "/healthz/../v1/jobs", "/login/../v1/jobs"])
def test_no_detour_leads_past_the_guard(path: str, http: TestClient, database: Database) -> None:
    stock.add_job(database, "secret-name")

    response = http.get(path)

    assert response.status_code in (401, 404)
    assert "secret-name" not in response.text


@pytest.mark.parametrize("path", ["/", "/v1/jobs", "/v1/nothing", "/healthz", "/static/dashboard.css", "/openapi.json"])
@pytest.mark.parametrize("headers", [{}, BEARER], ids=["refused", "let in"])
def test_every_answer_carries_the_security_headers(path: str, headers: dict[str, str], http: TestClient) -> None:
    response = http.get(path, headers=headers)

    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["referrer-policy"] == "same-origin"
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]


class TestOpenService:
    """Without a token in the settings, everyone who reaches the port is let in."""

    @pytest.fixture
    def settings(self, isolated: None, tmp_path: Path) -> Settings:
        return Settings(home=tmp_path / "home")

    @pytest.mark.parametrize("path", ["/", "/v1/jobs", "/openapi.json", "/docs"])
    def test_everything_is_open(self, path: str, http: TestClient) -> None:
        assert http.get(path).status_code == 200

    def test_login_form_takes_any_text(self, http: TestClient) -> None:
        assert http.post("/login", data={"token": "日本"}).status_code == 303


def test_login_page_can_be_opened_by_its_address(http: TestClient) -> None:
    assert http.get("/login", headers=BROWSER).headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("token", ["日本語", "", " padded", "line\nbreak"])
def test_token_that_no_header_can_carry_is_refused_by_the_settings(token: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        Settings(home=tmp_path / "other", token=token)


def test_download_carries_each_security_header_once(http: TestClient, database: Database, blobs: BlobStore, tmp_path: Path) -> None:
    artifact = stock.add_artifact(database, blobs, tmp_path / "made", stock.add_job(database), "manifest", "m.json", b"{}")

    response = http.get(f"/v1/artifacts/{artifact.id}/content", headers=BEARER)

    assert response.headers.get_list("x-content-type-options") == ["nosniff"]
