"""Health checks, and what the control plane's processes must never load."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.exc import TimeoutError
from starlette.testclient import TestClient

from services.settings import Settings
from services.store.database import Database

ROOT = Path(__file__).parents[3]


def test_service_with_its_database_and_artifact_store_is_ready(http: TestClient) -> None:
    response = http.get("/readyz")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_service_without_its_artifact_store_is_alive_but_not_ready(http: TestClient, settings: Settings) -> None:
    shutil.rmtree(settings.home / "artifacts", ignore_errors=True)
    (settings.home / "artifacts").write_text("a file where the folder should be")

    response = http.get("/readyz")

    assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
    assert response.json()["type"] == "urn:glora:problem:artifact-store-unavailable"
    assert http.get("/healthz").status_code == 200


@pytest.fixture
def no_database(database: Database, settings: Settings) -> None:
    """A folder where the database file should be."""
    database.dispose()
    for file in settings.home.glob("glora.db*"):
        file.unlink()
    (settings.home / "glora.db").mkdir()


@pytest.mark.parametrize("path", ["/readyz", "/v1/jobs", "/v1/jobs/j000", "/v1/jobs/j000/events", "/v1/artifacts/a000/content"])
def test_service_without_its_database_says_so(path: str, http: TestClient, no_database: None) -> None:
    response = http.get(path)

    assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
    assert response.json()["type"] == "urn:glora:problem:database-unavailable"


def test_service_whose_connections_are_all_taken_says_so(http: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*args: object) -> None:
        raise TimeoutError("QueuePool limit of size 5 overflow 10 reached")

    monkeypatch.setattr(Database, "read", none_left)
    response = http.get("/v1/jobs")

    assert (response.status_code, response.json()["type"]) == (503, "urn:glora:problem:database-unavailable")


def test_service_without_its_database_is_alive(http: TestClient, no_database: None) -> None:
    assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize("module", ["services.api.app", "services.client", "services.cli"])
def test_control_plane_loads_neither_torch_nor_ray(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'ray', 'timm', 'torchvision'}} & set(sys.modules)))"

    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
