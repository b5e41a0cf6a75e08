"""Submissions over texts: what is stored of them, and every refusal by its field."""

import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from services.settings import Settings
from services.store.database import Database
from tests.services.api import stock

BACKBONE = "transformers:owner/bert"
INFO = stock.INFO | {
    "architecture": "BertForSequenceClassification",
    "transform": None,
    "max_length": 512,
    "added_tokens": 2,
    "branches": 0,
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of two classes; one text of val is in train too."""
    path = tmp_path / "reviews.csv"
    path.write_text("split,text,label\ntrain,fine,good\ntrain,dull,bad\ntrain,grand,good\nval,fine,good\nval,flat,bad\n")
    return path


def body(table: Path, backbone: str = BACKBONE, data: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return stock.body(table, **changes) | {"backbone": {"name": backbone}, "data": {"path": str(table)} | (data or {})}


def posted(http: TestClient, database: Database, request: dict[str, Any]) -> Any:
    with stock.describer(database, INFO, None):
        return http.post("/v1/jobs", json=request)


def test_accepted_job_is_stored_with_facts_of_its_texts_and_changes_none_in_training(
    http: TestClient, table: Path, database: Database, tmp_path: Path
) -> None:
    further = tmp_path / "tweets.jsonl"
    further.write_text('{"text": "fine", "label": "good"}\n{"text": "meh", "label": "bad"}\n')

    response = posted(http, database, body(table, data={"max_length": 40, "also_test": {"tweets": str(further)}}))

    assert response.status_code == 201, response.text
    job = response.json()
    assert (job["request"]["training"]["augment"], job["request"]["data"]["max_length"]) == ([], 40)
    data = job["data"]
    assert (data["kind"], data["classes"], data["counts"]) == ("texts", ["bad", "good"], {"train": [1, 2], "val": [1, 1]})
    assert data["duplicates"] == [
        {"splits": ["train", "val"], "texts": 1, "examples": [["reviews.csv line 2", "reviews.csv line 5"]]},
    ]
    assert data["also_test"]["tweets"]["texts"] == 2
    assert [warning.split(",")[0] for warning in data["warnings"]] == [
        "1 val text is in train too",
        "1 tweets text is in train too",
        "1 tweets text is in val too",
    ]


@pytest.mark.parametrize(
    ("data", "changes", "field", "told"),
    [
        ({"max_length": 513}, {}, "data.max_length", "reads 3 to 512 tokens"),
        ({"max_length": 2}, {}, "data.max_length", "2 of which it adds itself"),
        ({"columns": {"text": "body"}}, {}, "data.path", "reviews.csv' line 2: column 'body' is missing; it has split, text, label"),
        ({"columns": {"text": "label"}}, {}, "data.columns", "two columns have the same name"),
        ({"path": "/nowhere"}, {}, "data.path", "'/nowhere' does not exist; accepted are a .csv or .jsonl file"),
        ({"also_test": {"x": "/nowhere"}}, {}, "data.also_test.x", "test set '/nowhere' does not exist"),
        ({}, {"training": {"augment": ["crop"]}}, "training.augment", "reads texts, which are not changed in training"),
        ({}, {"training": {"drop_path": 0.1}}, "training.drop_path", "no residual branches"),
    ],
)
def test_what_does_not_fit_texts_is_refused_by_its_field(
    data: dict[str, Any], changes: dict[str, Any], field: str, told: str, http: TestClient, table: Path, database: Database
) -> None:
    response = posted(http, database, body(table, data=data, **changes))

    assert response.status_code == 422
    assert [entry["field"] for entry in response.json()["errors"]] == [field]
    assert told in response.text.replace('\\"', '"')
    assert stock.counts(database)[0] == 0


def test_images_are_refused_of_a_text_backbone_and_texts_of_an_image_backbone(
    http: TestClient, data: Path, table: Path, backbone: str, database: Database
) -> None:
    images = http.post("/v1/jobs", json=body(data)).json()["detail"]
    texts = http.post("/v1/jobs", json=stock.body(table)).json()["detail"]

    assert "it has folders of images, which a transformers: backbone does not read" in images
    assert "reviews.csv is a table of texts, which a backbone named transformers:FOLDER reads" in texts
    assert stock.counts(database)[0] == 0


@pytest.mark.parametrize("given", [{"max_length": 8}, {"columns": {"text": "body"}}])
def test_settings_of_texts_are_refused_for_images(given: dict[str, Any], http: TestClient, data: Path, backbone: str) -> None:
    response = http.post("/v1/jobs", json=stock.body(data) | {"data": {"path": str(data)} | given})

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, f"data.{next(iter(given))}")
    assert "reads images" in response.json()["detail"]


def test_folder_of_datasets_without_that_library_is_refused_with_what_to_install(
    http: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text("{}")

    response = http.post("/v1/jobs", json=body(tmp_path / "saved"))

    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "data.path")
    assert "pip install datasets" in response.json()["detail"]


class TestDataRoots:
    """With `GLORA_DATA_ROOTS` set."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        (tmp_path / "allowed").mkdir()
        return Settings(home=tmp_path / "home", describe_seconds=10, data_roots=[tmp_path / "allowed"])

    def test_table_that_is_a_link_to_one_outside_is_refused(self, http: TestClient, table: Path, tmp_path: Path) -> None:
        folder = tmp_path / "allowed" / "reviews"
        folder.mkdir()
        (folder / "data.csv").symlink_to(table)

        response = http.post("/v1/jobs", json=body(folder))

        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "data.path")
        assert "does not lie below" in response.json()["detail"]

    @pytest.mark.parametrize("name", ["transformers:{outside}", "transformers:{outside}/../bert", "Transformers:bert"])
    def test_folder_of_a_backbone_outside_is_refused(self, name: str, http: TestClient, table: Path, tmp_path: Path) -> None:
        (tmp_path / "bert").mkdir()  # the test's working folder, so that a bare name is a folder too
        inside = table.rename(tmp_path / "allowed" / table.name)

        response = http.post("/v1/jobs", json=body(inside, backbone=name.format(outside=tmp_path / "bert")))

        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "backbone.name")

    def test_name_on_a_model_hub_is_no_folder(self, http: TestClient, table: Path, tmp_path: Path, database: Database) -> None:
        inside = table.rename(tmp_path / "allowed" / table.name)

        response = posted(http, database, body(inside))

        assert (response.status_code, response.json()["request"]["backbone"]["name"]) == (201, BACKBONE)
