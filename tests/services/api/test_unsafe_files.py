"""Submitted folders of which a part is somebody else's, or would be waited at for ever: refused before anything of it is read."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from services.api.app import create_app
from services.settings import Settings
from services.store.database import Database
from tests.services.api import stock

SECRET = "root:x:0:0:the password"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "allowed").mkdir()
    return Settings(home=tmp_path / "home", describe_seconds=10, data_roots=[tmp_path / "allowed"])


@pytest.fixture
def flowers(settings: Settings, data: Path) -> Path:
    return data.rename(settings.data_roots[0] / "flowers")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Somebody else's file, outside of the data roots."""
    path = tmp_path / "passwd"
    path.write_text(f"{SECRET}\n")
    return path


def bert(settings: Settings) -> Path:
    """A folder that holds a backbone by its files' names, which is all that is looked at here."""
    folder = settings.data_roots[0] / "bert"
    folder.mkdir()
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    return folder


def refused(http: TestClient, database: Database, request: dict[str, Any], field: str) -> str:
    response = http.post("/v1/jobs", json=request)
    assert (response.status_code, [error["field"] for error in response.json()["errors"]]) == (422, [field]), response.text
    assert stock.counts(database) == (0, 0)
    return str(response.json()["detail"])


@pytest.mark.parametrize("name", ["train800.txt", "state.json", "train/daisy/2.png", "notes"])
def test_link_to_a_file_outside_is_refused_and_nothing_of_it_is_told(
    name: str, http: TestClient, database: Database, flowers: Path, secret: Path
) -> None:
    (flowers / name).symlink_to(secret)

    told = refused(http, database, stock.body(flowers), "data.path")

    assert f"link {name!r} leads to what does not lie below" in told
    assert "root:x" not in told


def test_link_to_a_file_outside_is_refused_in_a_further_test_set(
    http: TestClient, database: Database, flowers: Path, secret: Path, settings: Settings
) -> None:
    sketch = shutil.copytree(flowers / "val", settings.data_roots[0] / "sketch")
    (sketch / "tulip" / "2.png").symlink_to(secret)
    request = stock.body(flowers) | {"data": {"path": str(flowers), "also_test": {"sketch": str(sketch)}}}

    assert "link 'tulip/2.png' leads" in refused(http, database, request, "data.also_test.sketch")


def test_links_that_stay_within_the_roots_are_accepted(http: TestClient, flowers: Path, settings: Settings, backbone: str) -> None:
    (flowers / "train" / "tulip").rename(settings.data_roots[0] / "tulip")
    (flowers / "train" / "tulip").symlink_to(settings.data_roots[0] / "tulip")

    response = http.post("/v1/jobs", json=stock.body(flowers))

    assert response.status_code == 201, response.text
    assert response.json()["data"]["splits"] == {"train": 4, "val": 4}


@pytest.mark.parametrize("name", ["train.csv", "data.jsonl", "state.json"])
def test_pipe_among_tables_is_refused(name: str, http: TestClient, database: Database, settings: Settings) -> None:
    folder = settings.data_roots[0] / "reviews"
    folder.mkdir()
    os.mkfifo(folder / name)

    request = stock.body(folder) | {"backbone": {"name": "transformers:owner/bert"}}

    assert f"{name!r} is a pipe, a socket or a device" in refused(http, database, request, "data.path")


def test_line_that_is_no_line_of_a_list_is_not_told_in_full(http: TestClient, database: Database, flowers: Path) -> None:
    (flowers / "train800.txt").write_text(SECRET * 20)

    told = refused(http, database, stock.body(flowers), "data.path")

    assert len(told) < 300


def _link(name: str) -> Callable[[Path, Path], None]:
    return lambda folder, secret: (folder / name).symlink_to(secret)


def _pipe(folder: Path, secret: Path) -> None:
    os.mkfifo(folder / "vocab.txt")


def _adapter(folder: Path, secret: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(secret)}))


def _large(folder: Path, secret: Path) -> None:
    os.truncate(folder / "config.json", 2**24 + 1)


def _index(names: Any) -> Callable[[Path, Path], None]:
    return lambda folder, secret: (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names})) and None


UNSAFE = [
    pytest.param(_link("vocab.txt"), "link 'vocab.txt' leads to what does not lie below", id="vocabulary"),
    pytest.param(_link("model.safetensors"), "link 'model.safetensors' leads", id="weights"),
    pytest.param(_link("added_tokens.json"), "link 'added_tokens.json' leads", id="tokens"),
    pytest.param(_pipe, "'vocab.txt' is a pipe", id="pipe"),
    pytest.param(_large, "config.json' has 16,777,217 bytes; accepted are up to 16,777,216", id="large"),
    pytest.param(_index({"a": "../../model.safetensors"}), "names '../../model.safetensors' as a file of weights", id="index"),
    pytest.param(_index({"a": "/model.safetensors"}), "names '/model.safetensors' as a file of weights", id="absolute index"),
    pytest.param(_index([]), "is no index of weights", id="no index"),
]


@pytest.mark.parametrize("kind", ["transformers", "local-dir"])
@pytest.mark.parametrize(("spoil", "told"), UNSAFE)
def test_backbone_folder_that_leads_elsewhere_is_refused(
    spoil: Callable[[Path, Path], None],
    told: str,
    kind: str,
    http: TestClient,
    database: Database,
    flowers: Path,
    secret: Path,
    settings: Settings,
) -> None:
    folder = bert(settings)
    spoil(folder, secret)
    table = settings.data_roots[0] / "reviews.csv"
    table.write_text("split,text,label\ntrain,fine,good\ntrain,dull,bad\nval,fine,good\n")
    request = stock.body(table if kind == "transformers" else flowers) | {"backbone": {"name": f"{kind}:{folder}"}}

    assert told in refused(http, database, request, "backbone.name")


def test_adapter_in_the_place_of_a_model_is_refused(http: TestClient, database: Database, secret: Path, settings: Settings) -> None:
    folder = bert(settings)
    _adapter(folder, secret)
    table = settings.data_roots[0] / "reviews.csv"
    table.write_text("split,text,label\ntrain,fine,good\ntrain,dull,bad\nval,fine,good\n")
    request = stock.body(table) | {"backbone": {"name": f"transformers:{folder}"}}

    assert "has adapter_config.json, which names another model as its base" in refused(http, database, request, "backbone.name")


def test_pipe_in_the_place_of_weights_is_refused(http: TestClient, database: Database, flowers: Path, settings: Settings) -> None:
    os.mkfifo(settings.data_roots[0] / "weights.pth")
    request = stock.body(flowers) | {"backbone": {"name": stock.BACKBONE, "weights": str(settings.data_roots[0] / "weights.pth")}}

    assert "is a pipe" in refused(http, database, request, "backbone.weights")


@pytest.mark.parametrize("route", ["jobs", "studies"])
def test_whoever_is_over_a_quota_is_told_so_before_anything_is_read(
    route: str, settings: Settings, app: FastAPI, flowers: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock.add_job(database)
    monkeypatch.setattr("services.job_data.scan", lambda path: pytest.fail("read"))
    http = TestClient(create_app(settings.model_copy(update={"user_queued_jobs": 1})))
    job = stock.body(flowers)
    request = job if route == "jobs" else {"base": job, "sweep": {"search.population": {"values": [4, 6]}}}

    response = http.post(f"/v1/{route}", json=request)

    assert (response.status_code, response.json()["quota"]) == (429, "queued_jobs")
