"""Rows of artifacts, made for bytes that are stored already."""

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from services.store import artifacts
from services.store.blobs import BlobStore
from services.store.database import Database
from services.store.errors import NotFound
from tests.services.store.rows import EPOCH, add_job, artifact


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    """A store of bytes in a folder."""
    return BlobStore(str(tmp_path / "blobs"))


def test_row_describes_the_bytes_it_was_made_for(database: Database, blobs: BlobStore, tmp_path: Path) -> None:
    job_id, content = add_job(database), b"weights" * 1000
    (tmp_path / "model.safetensors").write_bytes(content)

    made = artifacts.stored(blobs, tmp_path / "model.safetensors", "checkpoint", job_id)
    with database.write() as session:
        session.add(made)

    with database.read() as session:
        row = artifacts.get(session, made.id)
    assert (row.job_id, row.kind, row.name) == (job_id, "checkpoint", "model.safetensors")
    assert (row.size, row.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert b"".join(blobs.read(row.sha256)) == content


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("manifest.json", "application/json"),
        ("README.md", "text/markdown"),
        ("model.safetensors", "application/octet-stream"),
        ("model.onnx", "application/octet-stream"),
    ],
)
def test_media_type_follows_from_the_name(blobs: BlobStore, tmp_path: Path, name: str, media_type: str) -> None:
    (tmp_path / name).write_text("{}")

    assert artifacts.stored(blobs, tmp_path / name, "export", None).media_type == media_type


def test_same_bytes_may_have_several_rows(database: Database, blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")

    rows = [artifacts.stored(blobs, tmp_path / "a.json", "export", None) for _ in range(2)]
    with database.write() as session:
        session.add_all(rows)

    assert rows[0].id != rows[1].id
    assert rows[0].sha256 == rows[1].sha256


def test_size_beyond_four_gigabytes_is_kept(database: Database) -> None:
    row = artifact("a1")
    row.size = 5 << 30

    with database.write() as session:
        session.add(row)

    with database.read() as session:
        assert artifacts.get(session, "a1").size == 5 << 30


def test_unknown_artifact_is_not_found(database: Database) -> None:
    with pytest.raises(NotFound, match="a0"), database.read() as session:
        artifacts.get(session, "a0")


def test_artifacts_of_a_job_come_in_the_order_they_were_made(database: Database) -> None:
    job_id, other = add_job(database), add_job(database)
    with database.write() as session:
        session.add(artifact("a3", job_id, EPOCH))
        session.add(artifact("a1", job_id, EPOCH + timedelta(seconds=1)))
        session.add(artifact("a2", job_id, EPOCH))
        session.add(artifact("a4", other, EPOCH))
        session.add(artifact("a5", None, EPOCH))

    with database.read() as session:
        found = artifacts.of_job(session, job_id)

    assert [row.id for row in found] == ["a2", "a3", "a1"]
