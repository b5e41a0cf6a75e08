"""Artifacts: what is said of them, and their bytes with validators and ranges."""

import hashlib
from pathlib import Path
from urllib.parse import unquote

import pytest
from starlette.testclient import TestClient

from services.settings import Settings
from services.store.blobs import BlobStore
from services.store.database import Database
from services.store.models import Artifact
from tests.services.api import stock

CONTENT = bytes(range(256)) * 10
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ETAG = f'"{SHA256}"'


@pytest.fixture
def artifact(database: Database, blobs: BlobStore, tmp_path: Path) -> Artifact:
    return stock.add_artifact(database, blobs, tmp_path / "made", stock.add_job(database), "merged", "model.safetensors", CONTENT)


@pytest.fixture
def url(artifact: Artifact) -> str:
    return f"/v1/artifacts/{artifact.id}/content"


def test_artifact_tells_name_size_and_hash(http: TestClient, artifact: Artifact) -> None:
    view = http.get(f"/v1/artifacts/{artifact.id}").json()

    assert (view["name"], view["kind"], view["size"], view["sha256"]) == ("model.safetensors", "merged", 2560, SHA256)
    assert view["job_id"] == artifact.job_id


def test_artifacts_of_a_job_are_listed_in_the_order_they_were_made(
    http: TestClient, database: Database, blobs: BlobStore, tmp_path: Path
) -> None:
    job_id = stock.add_finished(database, blobs, tmp_path / "made")

    rows = http.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]

    assert [row["kind"] for row in rows] == ["merged", "timm-config", "manifest", "supernet"]


def test_whole_content_comes_with_its_hash_as_etag(http: TestClient, url: str) -> None:
    response = http.get(url)

    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["etag"] == ETAG
    assert response.headers["content-length"] == "2560"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-content-type-options"].startswith("nosniff")


@pytest.mark.parametrize("header", [ETAG, f"W/{ETAG}", f'"other", {ETAG}'])
def test_known_content_is_not_sent_again(header: str, http: TestClient, url: str) -> None:
    response = http.get(url, headers={"If-None-Match": header})

    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", ETAG)


@pytest.mark.parametrize("header", ['"other"', '"' + "0" * 64 + '"'])
def test_other_content_is_sent(header: str, http: TestClient, url: str) -> None:
    response = http.get(url, headers={"If-None-Match": header})

    assert (response.status_code, response.content) == (200, CONTENT)


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-199", 100, 200),
        ("bytes=2559-", 2559, 2560),
        ("bytes=100-", 100, 2560),
        ("bytes=-10", 2550, 2560),
        ("bytes=-99999", 0, 2560),
        ("bytes=2000-99999", 2000, 2560),
        ("bytes=0-", 0, 2560),
    ],
)
def test_range_is_answered_with_just_those_bytes(header: str, start: int, end: int, http: TestClient, url: str) -> None:
    response = http.get(url, headers={"Range": header})

    assert (response.status_code, response.content) == (206, CONTENT[start:end])
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/2560"
    assert response.headers["content-length"] == str(end - start)
    assert response.headers["etag"] == ETAG


@pytest.mark.parametrize("header", ["bytes=2560-", "bytes=99999-100000", "bytes=-0"])
def test_range_beyond_the_end_is_refused(header: str, http: TestClient, url: str) -> None:
    response = http.get(url, headers={"Range": header})

    assert (response.status_code, response.headers["content-type"]) == (416, "application/problem+json")
    assert "2560 bytes" in response.json()["detail"]


@pytest.mark.parametrize("header", ["bytes=", "bytes=-", "bytes=a-b", "lines=0-5", "bytes 0-5", "bytes=0-1,4-5", "bytes=0.5-2", "0-5", ""])
def test_malformed_or_unsupported_range_is_ignored(header: str, http: TestClient, url: str) -> None:
    response = http.get(url, headers={"Range": header})

    assert (response.status_code, response.content) == (200, CONTENT)
    assert "content-range" not in response.headers


def test_range_holds_while_the_content_is_the_one_that_was_begun(http: TestClient, url: str) -> None:
    response = http.get(url, headers={"Range": "bytes=5-9", "If-Range": ETAG})

    assert (response.status_code, response.content) == (206, CONTENT[5:10])


@pytest.mark.parametrize("condition", ['"other"', "Wed, 21 Oct 2015 07:28:00 GMT", f"W/{ETAG}"])
def test_range_of_other_content_gives_the_whole(condition: str, http: TestClient, url: str) -> None:
    response = http.get(url, headers={"Range": "bytes=5-9", "If-Range": condition})

    assert (response.status_code, response.content) == (200, CONTENT)


def test_pieces_put_together_are_the_whole(http: TestClient, url: str) -> None:
    pieces = [http.get(url, headers={"Range": f"bytes={start}-{start + 699}"}).content for start in range(0, 2560, 700)]

    assert b"".join(pieces) == CONTENT


def test_head_tells_all_and_sends_nothing(http: TestClient, url: str) -> None:
    response = http.head(url)

    assert (response.status_code, response.content) == (200, b"")
    assert (response.headers["content-length"], response.headers["etag"]) == ("2560", ETAG)


def test_empty_file_is_served(http: TestClient, database: Database, blobs: BlobStore, tmp_path: Path) -> None:
    empty = stock.add_artifact(database, blobs, tmp_path / "made", stock.add_job(database), "manifest", "empty.json", b"")

    response = http.get(f"/v1/artifacts/{empty.id}/content")

    assert (response.status_code, response.content, response.headers["content-length"]) == (200, b"", "0")


def test_missing_bytes_are_a_problem_not_a_broken_download(http: TestClient, url: str, settings: Settings) -> None:
    stock.blob_path(settings.home, SHA256).unlink()

    response = http.get(url)

    assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
    assert response.json()["type"] == "urn:glora:problem:artifact-unavailable"


@pytest.mark.parametrize("name", ['a"b;c.json', "mödel — 1.json", "line\nbreak.json", "50%.json", "mit leer zeichen.json", "\\back.json"])
def test_odd_file_name_survives_the_header(name: str, http: TestClient, database: Database, blobs: BlobStore, tmp_path: Path) -> None:
    odd = stock.add_artifact(database, blobs, tmp_path / "made", stock.add_job(database), "manifest", name, b"{}")

    header = http.get(f"/v1/artifacts/{odd.id}/content").headers["content-disposition"]

    kind, _, encoded = header.partition("; filename*=UTF-8''")
    assert kind == "attachment"
    assert encoded.isascii() and not set(encoded) & set('"; \n\\')
    assert unquote(encoded) == name


@pytest.mark.parametrize(
    "header", [f"bytes={'9' * 5000}-", f"bytes=0-{'9' * 5000}", f"bytes=-{'9' * 5000}"], ids=["start", "end", "suffix"]
)
def test_range_of_endless_digits_is_no_crash(header: str, http: TestClient, url: str) -> None:
    response = http.get(url, headers={"Range": header})

    assert response.status_code in (200, 206, 416)


def test_refused_range_tells_the_size(http: TestClient, url: str) -> None:
    response = http.get(url, headers={"Range": "bytes=2560-"})

    assert response.headers["content-range"] == "bytes */2560"


def test_range_is_ignored_by_head(http: TestClient, url: str) -> None:
    response = http.head(url, headers={"Range": "bytes=0-9"})

    assert (response.status_code, response.headers["content-length"]) == (200, "2560")


def test_star_matches_any_content(http: TestClient, url: str) -> None:
    assert http.get(url, headers={"If-None-Match": "*"}).status_code == 304


def test_head_of_missing_bytes_is_refused_like_get(http: TestClient, url: str, settings: Settings) -> None:
    stock.blob_path(settings.home, SHA256).unlink()

    assert http.head(url).status_code == 503
