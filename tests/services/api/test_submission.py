"""POST /v1/jobs: what is stored when all is well, and how each refusal leaves nothing behind."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from services.api.app import create_app
from services.settings import Settings
from services.store.database import Database
from tests.services.api import stock

JSON = {"Content-Type": "application/json"}


def fields(response: Any) -> list[str]:
    return [error["field"] for error in response.json()["errors"]]


def test_accepted_job_is_stored_as_queued_with_its_event(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    response = http.post("/v1/jobs", json=stock.body(data, budget="1k"))

    job = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["name"], job["request"]["budget"]) == ("queued", "flowers", 1000)
    assert job["data"]["classes"] == ["daisy", "tulip"]
    assert job["data"]["splits"] == {"train": 4, "val": 4}
    assert http.get(response.headers["location"]).json() == job
    log = http.get(f"/v1/jobs/{job['id']}/events", headers={"Accept": "application/json"}).json()
    assert [(event["sequence"], event["kind"]) for event in log] == [(1, "queued")]
    assert stock.counts(database) == (1, 1)


def test_job_without_a_name_is_named_after_its_data_folder(http: TestClient, data: Path, backbone: str) -> None:
    response = http.post("/v1/jobs", json=stock.body(data, name=""))

    assert response.json()["name"] == "flowers"


def test_data_path_is_stored_resolved(http: TestClient, data: Path, backbone: str) -> None:
    response = http.post("/v1/jobs", json=stock.body(str(data / ".." / data.name)))

    assert response.status_code == 201
    assert response.json()["request"]["data"]["path"] == str(data.resolve())


@pytest.mark.parametrize("field", ["data.path", "backbone.name", "backbone.weights"])
def test_relative_path_is_refused_since_the_service_has_another_folder(field: str, http: TestClient, data: Path) -> None:
    request = stock.body(data)
    part, leaf = field.split(".")
    request[part][leaf] = "local-dir:flowers" if leaf == "name" else "flowers"

    response = http.post("/v1/jobs", json=request)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert "relative" in response.json()["detail"]


def test_first_seen_backbone_is_waited_for_until_a_scheduler_describes_it(http: TestClient, data: Path, database: Database) -> None:
    with stock.describer(database, stock.INFO, None):
        response = http.post("/v1/jobs", json=stock.body(data))

    assert response.status_code == 201


def test_further_test_set_is_stored_with_its_facts(http: TestClient, data: Path, backbone: str, tmp_path: Path) -> None:
    (data / "val").rename(tmp_path / "sketch")
    (data / "train").joinpath("extra").mkdir()
    shutil.copytree(data / "train", data / "val")

    request = stock.body(data) | {"data": {"path": str(data), "also_test": {"sketch": str(tmp_path / "x" / ".." / "sketch")}}}
    job = http.post("/v1/jobs", json=request).json()

    assert job["request"]["data"]["also_test"] == {"sketch": str(tmp_path / "sketch")}
    facts = job["data"]["also_test"]["sketch"]
    assert (facts["images"], facts["classes"], len(facts["fingerprint"])) == (4, 2, 64)
    assert any("4 sketch images are in train too" in warning for warning in job["data"]["warnings"])


@pytest.mark.parametrize(
    ("more", "changes", "told"),
    [(0, {}, True), (1, {}, False), (0, {"train_on_val": True}, False), (0, {"finals": {"mode": "off"}}, False)],
)
def test_where_val_is_as_large_as_train_a_job_is_told_how_to_train_on_both(
    http: TestClient, data: Path, backbone: str, more: int, changes: dict[str, Any], told: bool
) -> None:
    shutil.rmtree(data / "val")
    shutil.copytree(data / "train", data / "val")
    image = next((data / "train").rglob("*.png"))
    for number in range(more):
        shutil.copy(image, image.with_name(f"more{number}.png"))

    job = http.post("/v1/jobs", json=stock.body(data) | {"finals": {"mode": "winner"}} | changes).json()

    assert any("`train_on_val` trains what has won once more" in warning for warning in job["data"]["warnings"]) == told


def test_unusable_further_test_set_is_refused_by_its_name(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    request = stock.body(data) | {"data": {"path": str(data), "also_test": {"sketch": "/no/such/folder"}}}

    response = http.post("/v1/jobs", json=request)

    assert (response.status_code, fields(response)) == (422, ["data.also_test.sketch"])
    assert stock.counts(database) == (0, 0)


def test_few_shots_are_drawn_by_the_jobs_seed_and_are_a_data_set_of_their_own(http: TestClient, data: Path, backbone: str) -> None:
    def found(**changes: Any) -> dict[str, Any]:
        return http.post("/v1/jobs", json=stock.body(data) | changes).json()["data"]  # type: ignore[no-any-return]

    few = [found(data={"path": str(data), "shots": 1}, seed=seed) for seed in (0, 0, *range(1, 6))]

    assert {str(facts["counts"]) for facts in few} == {"{'train': [1, 1], 'val': [2, 2]}"}
    assert few[0]["fingerprint"] == few[1]["fingerprint"]
    assert found()["fingerprint"] not in {facts["fingerprint"] for facts in few}
    assert len({facts["fingerprint"] for facts in few}) > 1


CHANGED: list[tuple[str, dict[str, Any], str]] = [
    ("unknown top-level field", {"colour": "blue"}, "colour"),
    ("unknown nested field", {"search": {"populations": 5}}, "search.populations"),
    ("negative population", {"search": {"population": -1}}, "search.population"),
    ("oversized population", {"search": {"population": 10**30}}, "search.population"),
    ("children beyond the population", {"search": {"population": 4, "crossover": 3, "mutation": 2}}, "search"),
    ("budget in no number", {"budget": "plenty"}, "budget"),
    ("negative budget", {"budget": -1}, "budget"),
    ("oversized seed", {"seed": 2**63}, "seed"),
    ("oversized epochs", {"training": {"epochs": 10**20}}, "training.epochs"),
    ("longer warm-up than training", {"training": {"epochs": 5, "warmup_epochs": 6}}, "training"),
    ("every branch left out", {"training": {"drop_path": 1.0}}, "training.drop_path"),
    ("no patience at all", {"training": {"patience": 0}}, "training.patience"),
    ("unknown tensor", {"space": {"choices": {"F": ["none"]}}}, "space.choices.F.[key]"),
    ("unknown metric", {"search": {"metric": "MulticlassF1"}}, "search.metric"),
    ("unknown precision", {"search": {"precision": "float16"}}, "search.precision"),
    ("metric that is no single number", {"search": {"metric": "MulticlassROC"}}, "search.metric"),
    ("unknown choice", {"space": {"choices": {"A": ["tucker"]}}}, "space.choices.A.0"),
    ("choice that the tensor cannot take", {"space": {"choices": {"C": ["scalar"]}}}, "space"),
    ("empty choices", {"space": {"choices": {"A": []}}}, "space"),
    ("repeated rank", {"space": {"ranks": [4, 4]}}, "space"),
    ("more choices than a tensor has", {"space": {"choices": {"A": [f"L{rank}" for rank in range(1, 30)]}}}, "space.choices.A"),
    ("text that runs backwards", {"name": "a\u202eb"}, "name"),
    ("terminal codes of eight bits", {"name": "a\x9bb"}, "name"),
    ("endless pattern", {"backbone": {"name": stock.BACKBONE, "layers": ["*" * 300]}}, "backbone.layers.0"),
    ("endless path", {"data": {"path": "/" + "a" * 5000}}, "data.path"),
    ("backbone that is no object", {"backbone": "vit"}, "backbone"),
    ("a test set named as a split", {"data": {"path": "/data", "also_test": {"val": "/data"}}}, "data.also_test.val.[key]"),
    ("no shots at all", {"data": {"path": "/no/such/folder", "shots": 0}}, "data.shots"),
    ("missing data folder", {"data": {"path": "/no/such/folder"}}, "data.path"),
    ("lone surrogate in a name", {"name": "\ud800"}, "name"),
]


@pytest.mark.parametrize(("changes", "field"), [pytest.param(c, f, id=name) for name, c, f in CHANGED])
def test_refused_field_is_named_and_nothing_is_created(
    changes: dict[str, Any], field: str, http: TestClient, data: Path, backbone: str, database: Database
) -> None:
    response = http.post("/v1/jobs", content=json.dumps(stock.body(data) | changes), headers=JSON)

    document = response.json()
    assert response.status_code == document["status"] == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert document["type"].startswith("urn:glora:problem:")
    assert fields(response) == [field]
    assert stock.counts(database) == (0, 0)


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("training", "learning_rate"),
        ("training", "weight_decay"),
        ("training", "warmup"),
        ("search", "mutation_probability"),
    ],
)
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_number_that_is_not_finite_is_refused(
    section: str, name: str, number: str, http: TestClient, data: Path, backbone: str, database: Database
) -> None:
    raw = json.dumps(stock.body(data))[:-1] + f', "{section}": {{"{name}": {number}}}}}'

    response = http.post("/v1/jobs", content=raw, headers=JSON)

    assert (response.status_code, fields(response)) == (422, [f"{section}.{name}"])
    assert stock.counts(database) == (0, 0)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_budget_that_is_not_finite_is_refused(number: str, http: TestClient, data: Path, backbone: str, database: Database) -> None:
    raw = json.dumps(stock.body(data, budget=-77)).replace("-77", number)

    response = http.post("/v1/jobs", content=raw, headers=JSON)

    assert (response.status_code, fields(response)) == (422, ["budget"])
    assert stock.counts(database) == (0, 0)


def test_unknown_metric_is_refused_with_the_names_that_come_near(http: TestClient, data: Path, backbone: str) -> None:
    response = http.post("/v1/jobs", json=stock.body(data, search={"metric": "f1-score"}))

    assert "did you mean MulticlassF1Score" in response.json()["detail"]


def test_metric_that_cannot_count_so_many_classes_is_refused(
    http: TestClient, data: Path, backbone: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glora_core.metrics._CLASSES", range(2, 2))

    response = http.post("/v1/jobs", json=stock.body(data, search={"metric": "MulticlassF1Score"}))

    assert (response.status_code, fields(response)) == (422, ["search.metric"])
    assert stock.counts(database) == (0, 0)


def test_drop_path_is_refused_of_a_backbone_that_has_nothing_to_leave_out(http: TestClient, data: Path, database: Database) -> None:
    with stock.describer(database, stock.INFO | {"branches": 0}, None):
        response = http.post("/v1/jobs", json=stock.body(data, training={"drop_path": 0.1}))

    assert response.status_code == 422
    assert fields(response) == ["training.drop_path"]
    assert "accepted is 0" in response.json()["detail"]


@pytest.mark.parametrize("described", [{"branches": 4}, {}], ids=["with branches", "before branches were counted"])
def test_drop_path_is_accepted_of_a_backbone_that_may_have_branches(
    described: dict[str, int], http: TestClient, data: Path, database: Database
) -> None:
    with stock.describer(database, stock.INFO | described, None):
        response = http.post("/v1/jobs", json=stock.body(data, training={"drop_path": 0.1, "warmup_epochs": 3, "patience": 5}))

    asked = response.json()["request"]["training"]
    assert response.status_code == 201
    assert (asked["drop_path"], asked["warmup_epochs"], asked["patience"]) == (0.1, 3, 5)


def test_budget_below_the_space_is_refused_with_the_achievable_range(
    http: TestClient, data: Path, backbone: str, database: Database
) -> None:
    response = http.post("/v1/jobs", json=stock.body(data, budget=31, space={"choices": {"A": ["vector"], "E": ["vector", "none"]}}))

    document = response.json()
    assert (response.status_code, fields(response)) == (422, ["budget"])
    assert document["type"] == "urn:glora:problem:budget-infeasible"
    assert document["achievable"]["minimum"] == 32
    assert document["achievable"]["maximum"] > 32
    assert stock.counts(database) == (0, 0)


def test_budget_of_exactly_the_achievable_minimum_is_accepted(http: TestClient, data: Path, backbone: str) -> None:
    response = http.post("/v1/jobs", json=stock.body(data, budget=32, space={"choices": {"A": ["vector"]}}))

    assert response.status_code == 201


def _emptied(root: Path) -> None:
    for image in root.rglob("*.png"):
        image.unlink()


def _one_class(root: Path) -> None:
    for split in ("train", "val"):
        for image in (root / split / "tulip").iterdir():
            image.unlink()


def _corrupt(root: Path) -> None:
    (root / "val" / "tulip" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnot an image")


def _cut(root: Path) -> None:
    image = root / "val" / "tulip" / "1.png"
    image.write_bytes(image.read_bytes()[:40])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(_emptied, "has no images", id="empty folder"),
        pytest.param(_one_class, "one class only (daisy)", id="one class"),
        pytest.param(_corrupt, "val/tulip/1.png", id="corrupt image"),
        pytest.param(_cut, "val/tulip/1.png", id="truncated image"),
    ],
)
def test_unusable_data_folder_is_refused_with_what_is_wrong(
    damage: Callable[[Path], None], told: str, http: TestClient, data: Path, backbone: str, database: Database
) -> None:
    damage(data)

    response = http.post("/v1/jobs", json=stock.body(data))

    assert (response.status_code, fields(response)) == (422, ["data.path"])
    assert response.json()["type"] == "urn:glora:problem:data-invalid"
    assert told in response.json()["detail"]
    assert stock.counts(database) == (0, 0)


def test_file_instead_of_a_data_folder_is_refused(http: TestClient, data: Path, backbone: str) -> None:
    response = http.post("/v1/jobs", json=stock.body(data / "train" / "daisy" / "0.png"))

    assert (response.status_code, fields(response)) == (422, ["data.path"])


class TestDataRoots:
    """Submitted data must lie below one of the operator's folders, wherever a path pretends to be."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        (tmp_path / "allowed").mkdir()
        return Settings(home=tmp_path / "home", data_roots=[tmp_path / "allowed"])

    @pytest.fixture(params=["plainly", "by a symlink", "by dots"])
    def outside(self, request: pytest.FixtureRequest, settings: Settings, tmp_path: Path, data: Path) -> Path:
        if request.param == "by a symlink":
            (tmp_path / "allowed" / "link").symlink_to(data)
        ways = {"plainly": data, "by a symlink": tmp_path / "allowed" / "link", "by dots": tmp_path / "allowed" / ".." / "flowers"}
        return ways[request.param]

    def test_data_outside_is_refused(self, outside: Path, http: TestClient, backbone: str, database: Database) -> None:
        response = http.post("/v1/jobs", json=stock.body(outside))

        assert (response.status_code, fields(response)) == (422, ["data.path"])
        assert "does not lie below" in response.json()["detail"]
        assert stock.counts(database) == (0, 0)

    def test_further_test_set_outside_is_refused(
        self, outside: Path, tmp_path: Path, data: Path, http: TestClient, backbone: str, database: Database
    ) -> None:
        shutil.copytree(data, tmp_path / "allowed" / "flowers")
        request = {"path": str(tmp_path / "allowed" / "flowers"), "also_test": {"sketch": str(outside / "val")}}

        response = http.post("/v1/jobs", json=stock.body(data) | {"data": request})

        assert (response.status_code, fields(response)) == (422, ["data.also_test.sketch"])
        assert "does not lie below" in response.json()["detail"]
        assert stock.counts(database) == (0, 0)

    def test_image_of_a_further_test_set_that_leads_outside_is_refused(
        self, tmp_path: Path, data: Path, http: TestClient, backbone: str
    ) -> None:
        root = shutil.copytree(data, tmp_path / "allowed" / "flowers")
        sketch = shutil.copytree(data / "val", tmp_path / "allowed" / "sketch")
        (sketch / "tulip" / "0.png").unlink()
        (sketch / "tulip" / "0.png").symlink_to(data / "val" / "tulip" / "0.png")

        response = http.post("/v1/jobs", json=stock.body(root) | {"data": {"path": str(root), "also_test": {"sketch": str(sketch)}}})

        assert (response.status_code, fields(response)) == (422, ["data.also_test.sketch"])

    def test_folder_whose_name_merely_starts_alike_is_refused(self, tmp_path: Path, data: Path, http: TestClient, backbone: str) -> None:
        data.rename(tmp_path / "allowed-not")

        response = http.post("/v1/jobs", json=stock.body(tmp_path / "allowed-not"))

        assert (response.status_code, fields(response)) == (422, ["data.path"])

    def test_data_inside_is_accepted(self, tmp_path: Path, data: Path, http: TestClient, backbone: str) -> None:
        data.rename(tmp_path / "allowed" / "flowers")

        response = http.post("/v1/jobs", json=stock.body(tmp_path / "allowed" / "flowers"))

        assert response.status_code == 201

    def test_class_folder_that_is_a_symlink_to_the_outside_is_refused(
        self, tmp_path: Path, data: Path, http: TestClient, backbone: str
    ) -> None:
        secret = tmp_path / "secret"
        (data / "train" / "tulip").rename(secret)
        data.rename(tmp_path / "allowed" / "flowers")
        (tmp_path / "allowed" / "flowers" / "train" / "tulip").symlink_to(secret)

        response = http.post("/v1/jobs", json=stock.body(tmp_path / "allowed" / "flowers"))

        assert (response.status_code, fields(response)) == (422, ["data.path"])


def test_backbone_that_cannot_be_described_is_refused_with_the_reason(http: TestClient, data: Path, database: Database) -> None:
    with stock.describer(database, None, "timm knows no model 'toy_vit'"):
        response = http.post("/v1/jobs", json=stock.body(data))

    assert (response.status_code, fields(response)) == (422, ["backbone.name"])
    assert response.json()["detail"] == "timm knows no model 'toy_vit'"
    assert stock.counts(database) == (0, 0)


def test_backbone_that_failed_before_is_asked_for_again(http: TestClient, data: Path, database: Database) -> None:
    with stock.describer(database, None, "the hub is out of reach"):
        http.post("/v1/jobs", json=stock.body(data))

    with stock.describer(database, stock.INFO, None):
        response = http.post("/v1/jobs", json=stock.body(data))

    assert response.status_code == 201


def test_submission_without_a_scheduler_is_told_so(settings: Settings, data: Path) -> None:
    app = create_app(settings.model_copy(update={"describe_seconds": 0.2}))

    response = TestClient(app).post("/v1/jobs", json=stock.body(data))

    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert "is one running?" in response.json()["detail"]
    assert stock.counts(app.state.database) == (0, 0)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"", 422, id="nothing"),
        pytest.param(b'{"name": ', 422, id="half an object"),
        pytest.param(b"[]", 422, id="a list"),
        pytest.param(b"null", 422, id="null"),
        pytest.param(b'"text"', 422, id="a text"),
        pytest.param("{\"name\": \"ü\"}".encode("latin-1"), 400, id="not UTF-8"),
        pytest.param(b"[" * 100_000, 400, id="nested too deeply"),
        pytest.param(b'{"budget": ' + b"9" * 5000 + b"}", 400, id="a number of 5000 digits"),
    ],
)  # fmt: skip
def test_body_that_is_no_request_is_refused(raw: bytes, status: int, http: TestClient, database: Database) -> None:
    response = http.post("/v1/jobs", content=raw, headers=JSON)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert stock.counts(database) == (0, 0)


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_body_of_another_media_type_is_refused(media_type: str, http: TestClient, data: Path, backbone: str, database: Database) -> None:
    response = http.post("/v1/jobs", content=json.dumps(stock.body(data)), headers={"Content-Type": media_type})

    assert (response.status_code, fields(response)) == (422, ["body"])
    assert stock.counts(database) == (0, 0)


def test_all_wrong_fields_are_named_at_once(http: TestClient, data: Path) -> None:
    response = http.post("/v1/jobs", json=stock.body(data, seed=-1, search={"population": 0, "generations": 0}))

    assert sorted(fields(response)) == ["search.generations", "search.population", "seed"]


def test_two_identical_submissions_at_once_both_become_jobs(http: TestClient, data: Path, database: Database) -> None:
    with stock.describer(database, stock.INFO, None), ThreadPoolExecutor(2) as pool:
        responses = list(pool.map(lambda _: http.post("/v1/jobs", json=stock.body(data)), range(2)))

    assert [response.status_code for response in responses] == [201, 201]
    assert responses[0].json()["id"] != responses[1].json()["id"]
    assert stock.counts(database) == (2, 2)


@pytest.mark.parametrize("section", [{}, {"path": ""}, {"path": 5}], ids=["missing", "empty", "a number"])
def test_refused_data_path_is_named_in_full(section: dict[str, Any], http: TestClient) -> None:
    response = http.post("/v1/jobs", json=stock.body() | {"data": section})

    assert fields(response) == ["data.path"]


def test_broken_json_is_reported_of_the_body(http: TestClient) -> None:
    response = http.post("/v1/jobs", content=b'{"name": ', headers=JSON)

    assert fields(response) == ["body"]


@pytest.mark.parametrize("path", ["a\0b", "/" + "a" * 5000, "~no-such-user/x"], ids=["zero byte", "too long", "unknown user"])
def test_path_that_no_file_system_takes_is_refused(path: str, http: TestClient, database: Database) -> None:
    response = http.post("/v1/jobs", json=stock.body(path))

    assert (response.status_code, fields(response)) == (422, ["data.path"])


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param("train/daisy/0.png ²".encode(), id="a digit that is no number"),
        pytest.param(b"../flowers/train/daisy/0.png", id="no label"),
        pytest.param(b"../elsewhere.png 0", id="outside"),
        pytest.param(
            b"train/\x00.png 0",
            id="zero byte",
        ),
    ],
)
def test_unreadable_list_file_is_refused(listed: bytes, http: TestClient, data: Path) -> None:
    (data / "train800.txt").write_bytes(listed)

    response = http.post("/v1/jobs", json=stock.body(data))

    assert (response.status_code, fields(response)) == (422, ["data.path"])


def test_budget_text_beyond_any_float_is_refused(http: TestClient, data: Path) -> None:
    response = http.post("/v1/jobs", json=stock.body(data, budget="9" * 400))

    assert (response.status_code, fields(response)) == (422, ["budget"])


def test_name_taken_from_the_data_folder_fits_its_column(http: TestClient, data: Path, backbone: str, tmp_path: Path) -> None:
    data.rename(tmp_path / ("f" * 200))

    response = http.post("/v1/jobs", json=stock.body(tmp_path / ("f" * 200), name=""))

    assert response.status_code == 201
    assert len(response.json()["name"]) <= 120


@pytest.mark.parametrize(
    ("training", "field", "told"),
    [
        ({"workers": 5}, "training.workers", "5 training workers with one CPU each, and the cluster has at most 4 CPUs"),
        ({"workers": 2, "use_gpu": True}, "training.workers", "2 training workers with one GPU each, and the cluster has at most 1 GPU"),
    ],
)
def test_job_that_never_fits_is_refused_with_what_the_cluster_has(
    settings: Settings, http: TestClient, data: Path, backbone: str, database: Database, training: dict[str, Any], field: str, told: str
) -> None:
    known = TestClient(create_app(settings.model_copy(update={"cluster_cpus": 4, "cluster_gpus": 1})))

    refusal = known.post("/v1/jobs", json=stock.body(data, training=training))

    problem = refusal.json()
    assert (refusal.status_code, problem["type"], fields(refusal)) == (422, "urn:glora:problem:resources-infeasible", [field])
    assert (problem["cluster"], told in problem["detail"]) == ({"cpus": 4, "gpus": 1}, True)
    assert stock.counts(database) == (0, 0)
    assert http.post("/v1/jobs", json=stock.body(data, training=training)).status_code == 201


@pytest.mark.parametrize(
    ("asked", "field", "told"),
    [
        ({"resources": {"worker": {"cpus": 4.5}}}, "resources.worker.cpus", "1 training worker with 4.5 CPUs each"),
        (
            {"resources": {"evaluator": {"cpus": 5}}},
            "resources.evaluator.cpus",
            "1 evaluator with 5 CPUs each, and the cluster has at most 4",
        ),
        ({"resources": {"worker": {"cpus": 1.5}}, "training": {"workers": 3}}, "training.workers", "3 training workers with 1.5 CPUs each"),
        ({"resources": {"worker": {"cpus": 9}}, "training": {"use_gpu": True}}, "resources.worker.cpus", "with 9 CPUs each"),
    ],
)
def test_processes_that_never_fit_are_refused_by_what_each_of_them_holds(
    settings: Settings, data: Path, backbone: str, asked: dict[str, Any], field: str, told: str
) -> None:
    known = TestClient(create_app(settings.model_copy(update={"cluster_cpus": 4, "cluster_gpus": 1})))

    refusal = known.post("/v1/jobs", json=stock.body(data, **asked))

    assert (refusal.status_code, fields(refusal), told in refusal.json()["detail"]) == (422, [field], True)


def test_many_workers_fit_where_each_holds_a_part_of_a_cpu(settings: Settings, data: Path, backbone: str) -> None:
    known = TestClient(create_app(settings.model_copy(update={"cluster_cpus": 1})))
    asked: dict[str, Any] = {"resources": {"worker": {"cpus": 0.1}}, "training": {"workers": 10}}

    assert known.post("/v1/jobs", json=stock.body(data, **asked)).status_code == 201


def test_job_that_just_fits_is_accepted_and_gpus_are_not_cpus(settings: Settings, http: TestClient, data: Path, backbone: str) -> None:
    known = TestClient(create_app(settings.model_copy(update={"cluster_cpus": 4, "cluster_gpus": 0})))

    accepted = known.post("/v1/jobs", json=stock.body(data, training={"workers": 4}, search={"evaluators": 99}))
    refused = known.post("/v1/jobs", json=stock.body(data, training={"use_gpu": True}))

    assert (accepted.status_code, refused.status_code, fields(refused)) == (201, 422, ["training.use_gpu"])


def test_data_with_names_that_are_not_utf8_is_refused(http: TestClient, data: Path, backbone: str, database: Database) -> None:
    folder = next((data / "train").iterdir())
    folder.rename(os.fsdecode(os.fsencode(folder.parent) + b"/caf\xe9"))

    response = http.post("/v1/jobs", json=stock.body(data))

    assert (response.status_code, fields(response)) == (422, ["data.path"])
    assert stock.counts(database) == (0, 0)


def test_data_that_the_service_may_not_read_is_refused_by_its_path(
    http: TestClient, data: Path, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("services.job_data.scan", scan)

    response = http.post("/v1/jobs", json=stock.body(data))

    assert (response.status_code, fields(response)) == (422, ["data.path"])
    assert response.json()["detail"] == f"{str(data)!r} cannot be read by the service: Permission denied"
