"""Artifact bytes in a local folder and in an S3-compatible store."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from s3fs import S3FileSystem

from services.store.blobs import BlobDamaged, BlobMissing, BlobStore, StoreUnavailable
from tests.servers.ports import free_port
from tests.servers.s3 import s3_server

MISSING = "ab" * 32
CONTENT = bytes(range(256)) * 16
CHUNKS = secrets.token_bytes(1 << 20) * 2 + b"end"
"""More than two of the chunks that blobs are read in."""


@dataclass(frozen=True)
class Place:
    """Where a store keeps its bytes, looked at from outside of it and without any cache."""

    url: str
    endpoint: str = ""

    def open(self) -> BlobStore:
        """A store that keeps its bytes here."""
        return BlobStore(self.url, self.endpoint)

    def files(self) -> dict[str, bytes]:
        """Name, without folders, and content of every file that is here."""
        fs, root = self._look()
        return {path.rpartition("/")[2]: fs.cat_file(path) for path in fs.find(root)}

    def damage(self, digest: str, content: bytes) -> None:
        """Put other bytes where a blob's bytes are."""
        fs, root = self._look()
        (path,) = [path for path in fs.find(root) if path.endswith(digest)]
        fs.pipe_file(path, content)

    def remove(self, digest: str) -> None:
        """Take a blob away."""
        fs, root = self._look()
        (path,) = [path for path in fs.find(root) if path.endswith(digest)]
        fs.rm_file(path)

    def _look(self) -> tuple[Any, str]:
        s3 = {"client_kwargs": {"endpoint_url": self.endpoint}, "use_listings_cache": False} if self.endpoint else {}
        return fsspec.core.url_to_fs(self.url, skip_instance_cache=True, **s3)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One S3 endpoint for the tests of a session."""
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as endpoint:
        yield endpoint


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place that nothing was stored in yet; on S3 there is not even a bucket."""
    if request.param == "local":
        return Place(str(tmp_path / "store"))
    return Place(f"s3://bucket-{secrets.token_hex(6)}/artifacts", request.getfixturevalue("s3_endpoint"))


@pytest.fixture
def store(place: Place) -> BlobStore:
    """An empty store."""
    return place.open()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to store, of `CONTENT`."""
    path = tmp_path / "source.bin"
    path.write_bytes(CONTENT)
    return path


def test_stored_file_goes_by_its_hash(place: Place, store: BlobStore, source: Path) -> None:
    digest, size = store.put(source)

    assert (digest, size) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert place.files() == {digest: CONTENT}


def test_storing_again_changes_nothing(place: Place, store: BlobStore, source: Path) -> None:
    first = store.put(source)

    again = store.put(source)

    assert again == first
    assert place.files() == {first[0]: CONTENT}


def test_same_bytes_under_another_name_are_stored_once(place: Place, store: BlobStore, source: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.bin").write_bytes(CONTENT)
    first = store.put(source)

    assert store.put(tmp_path / "copy.bin") == first
    assert place.files() == {first[0]: CONTENT}


def test_blob_that_was_cut_short_is_stored_again(place: Place, store: BlobStore, source: Path) -> None:
    digest, _ = store.put(source)
    place.damage(digest, CONTENT[:10])

    place.open().put(source)

    assert place.files() == {digest: CONTENT}


def test_blob_stored_by_one_store_is_read_by_another(place: Place, store: BlobStore, source: Path) -> None:
    other = place.open()
    with pytest.raises(BlobMissing):
        other.read(hashlib.sha256(CONTENT).hexdigest())

    digest, _ = store.put(source)

    assert b"".join(other.read(digest)) == CONTENT


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        pytest.param(0, None, CONTENT, id="all"),
        pytest.param(0, 1, CONTENT[:1], id="first byte"),
        pytest.param(100, 300, CONTENT[100:300], id="middle"),
        pytest.param(4000, None, CONTENT[4000:], id="to the end"),
        pytest.param(4000, 9999, CONTENT[4000:], id="beyond the end"),
        pytest.param(7, 7, b"", id="nothing"),
        pytest.param(len(CONTENT), None, b"", id="from the end"),
    ],
)
def test_range_of_a_blob_is_read(store: BlobStore, source: Path, start: int, end: int | None, expected: bytes) -> None:
    digest, _ = store.put(source)

    assert b"".join(store.read(digest, start, end)) == expected


def test_large_blob_is_read_in_several_chunks(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(CHUNKS)
    digest, _ = store.put(tmp_path / "large.bin")

    chunks = list(store.read(digest))

    assert len(chunks) > 2
    assert b"".join(chunks) == CHUNKS


def test_range_across_chunks_is_read(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(CHUNKS)
    digest, _ = store.put(tmp_path / "large.bin")
    start, end = (1 << 20) - 5, (2 << 20) + 2

    assert b"".join(store.read(digest, start, end)) == CHUNKS[start:end]


def test_empty_file_is_stored_and_read(place: Place, store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    digest, size = store.put(tmp_path / "empty")

    assert (digest, size) == (hashlib.sha256(b"").hexdigest(), 0)
    assert place.files() == {digest: b""}
    assert list(store.read(digest)) == []
    assert store.fetch(digest, tmp_path / "fetched").read_bytes() == b""


def test_missing_blob_is_told_before_the_first_chunk(store: BlobStore, source: Path) -> None:
    store.put(source)

    with pytest.raises(BlobMissing, match=MISSING):
        store.read(MISSING)


def test_blob_is_missing_in_a_store_without_anything(store: BlobStore) -> None:
    with pytest.raises(BlobMissing, match=MISSING):
        store.read(MISSING)


def test_blob_that_was_removed_is_missing(place: Place, store: BlobStore, source: Path) -> None:
    digest, _ = store.put(source)
    place.remove(digest)

    with pytest.raises(BlobMissing, match=digest):
        store.read(digest)


def test_fetched_file_holds_the_bytes_and_nothing_lies_beside_it(store: BlobStore, source: Path, tmp_path: Path) -> None:
    digest, _ = store.put(source)
    target = tmp_path / "new" / "folder" / "model.bin"

    fetched = store.fetch(digest, target)

    assert fetched == target
    assert _content_of(target.parent) == {"model.bin": CONTENT}


def test_fetching_replaces_the_file_that_is_there(store: BlobStore, source: Path, tmp_path: Path) -> None:
    digest, _ = store.put(source)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.bin").write_bytes(b"older")

    store.fetch(digest, tmp_path / "out" / "model.bin")

    assert _content_of(tmp_path / "out") == {"model.bin": CONTENT}


@pytest.mark.parametrize("stored", [CONTENT[:-1] + b"?", CONTENT[:100]], ids=["one byte differs", "cut short"])
def test_damaged_blob_is_not_fetched(place: Place, store: BlobStore, source: Path, tmp_path: Path, stored: bytes) -> None:
    digest, _ = store.put(source)
    place.damage(digest, stored)

    with pytest.raises(BlobMissing, match=digest):
        place.open().fetch(digest, tmp_path / "out" / "model.bin")

    assert _content_of(tmp_path / "out") == {}


def test_damaged_blob_leaves_the_file_that_is_there(place: Place, store: BlobStore, source: Path, tmp_path: Path) -> None:
    digest, _ = store.put(source)
    place.damage(digest, b"?" * len(CONTENT))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.bin").write_bytes(b"older")

    with pytest.raises(BlobMissing):
        store.fetch(digest, tmp_path / "out" / "model.bin")

    assert _content_of(tmp_path / "out") == {"model.bin": b"older"}


def test_only_the_named_jobs_training_checkpoints_are_removed(store, tmp_path):
    filesystem, folder = store.training_folder()
    for name in ("j1-abc", "j1-def", "j10-abc"):
        filesystem.makedirs(f"{folder}/{name}", exist_ok=True)
        filesystem.pipe_file(f"{folder}/{name}/state.pt", b"weights")

    store.remove_training("j1")

    assert [path.rpartition("/")[2] for path in filesystem.ls(folder, detail=False)] == ["j10-abc"]


def test_missing_blob_leaves_no_file_when_fetched(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(BlobMissing, match=MISSING):
        store.fetch(MISSING, tmp_path / "out" / "model.bin")

    assert _content_of(tmp_path / "out") == {}


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_nothing_is_left_of_a_file_that_could_not_be_written(
    place: Place, store: BlobStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)

    with pytest.raises(OSError, match="No space left"):
        store.put(source)

    assert place.files() == {}


def test_file_that_could_not_be_written_is_stored_by_the_next_attempt(
    place: Place, store: BlobStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = S3FileSystem._call_s3

    def replace_nothing(*paths: object) -> None:
        raise OSError(5, "Input/output error")

    async def call_all_but_uploads(fs: S3FileSystem, method: str, *arguments: Any, **keywords: Any) -> Any:
        if method == "put_object":
            raise OSError(5, "Input/output error")
        return await call(fs, method, *arguments, **keywords)

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", replace_nothing)
        broken.setattr(S3FileSystem, "_call_s3", call_all_but_uploads)
        with pytest.raises(OSError, match="Input/output"):
            store.put(source)
    digest = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(BlobMissing):
        store.read(digest)

    store.put(source)

    assert place.files()[digest] == CONTENT


def test_store_that_holds_something_passes_its_check(store: BlobStore, source: Path) -> None:
    store.put(source)

    store.check()


def test_store_that_holds_nothing_yet_passes_its_check(store: BlobStore) -> None:
    store.check()


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_folder_that_cannot_be_made_fails_its_check(tmp_path: Path, place: Place) -> None:
    (tmp_path / "store").write_text("a file is in the way")

    with pytest.raises(OSError, match="store"):
        place.open().check()


def test_endpoint_that_was_lost_fails_its_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    with s3_server(tmp_path / "log") as endpoint:
        store = BlobStore("s3://bucket/artifacts", endpoint)
        store.check()

    with pytest.raises(OSError, match=r"127\.0\.0\.1"):
        store.check()


def test_training_folder_lies_beside_the_blobs_and_can_be_written_to(place: Place, store: BlobStore) -> None:
    fs, folder = store.training_folder()

    fs.pipe_file(f"{folder}/checkpoint.bin", CONTENT)

    assert folder.endswith("/training")
    assert place.files() == {"checkpoint.bin": CONTENT}


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_training_folder_is_made(store: BlobStore, tmp_path: Path) -> None:
    store.training_folder()

    assert (tmp_path / "store" / "training").is_dir()


def test_training_folder_may_be_asked_for_again(place: Place, store: BlobStore) -> None:
    fs, folder = store.training_folder()
    fs.pipe_file(f"{folder}/checkpoint.bin", CONTENT)

    again = place.open().training_folder()[1]

    assert again == folder
    assert place.files() == {"checkpoint.bin": CONTENT}


def _content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_damage_is_told_before_a_whole_blob_has_been_read(place: Place, store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(CHUNKS)
    digest, size = store.put(tmp_path / "large.bin")
    place.damage(digest, CHUNKS[:-1] + b"?")
    read = b""

    with pytest.raises(BlobMissing, match="damaged"):
        for chunk in store.read(digest, 0, size):
            read += chunk

    assert 0 < len(read) < size


def test_large_file_goes_to_s3_in_parts_and_comes_back_whole(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.store.blobs._PART", 5 << 20)
    store = BlobStore(f"s3://bucket-{secrets.token_hex(6)}/artifacts", s3_endpoint)
    content = secrets.token_bytes(1 << 20) * 11
    (tmp_path / "large.bin").write_bytes(content)

    digest, _ = store.put(tmp_path / "large.bin")

    (file,) = store.listing()
    assert store._fs.info(file.path)["ETag"].strip('"').endswith("-3")  # of three parts
    assert b"".join(store.read(digest)) == content


def test_upload_in_parts_that_was_left_off_is_told_of_and_can_be_dropped(s3_endpoint: str) -> None:
    bucket = f"bucket-{secrets.token_hex(6)}"
    store = BlobStore(f"s3://{bucket}/artifacts", s3_endpoint)
    assert store.uploads() == []
    store.check()
    for key in (f"artifacts/ab/{MISSING}", "artifacts/training/run/state.pt", "artifacts/notes.txt", f"elsewhere/ab/{MISSING}"):
        store._fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)

    found = sorted(store.uploads(), key=lambda upload: upload.path)

    assert [upload.path for upload in found] == [f"{bucket}/artifacts/ab/{MISSING}", f"{bucket}/artifacts/training/run/state.pt"]
    assert found[0].began < datetime.now(UTC)  # moto's are all of one day in 2010
    store.abort(found[0])
    store.abort(found[0])
    assert store.uploads() == found[1:]


def test_local_store_has_no_uploads_in_parts(tmp_path: Path) -> None:
    assert BlobStore(str(tmp_path)).uploads() == []


def test_file_that_changes_while_it_is_stored_is_refused(
    place: Place, store: BlobStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_complete", lambda path, size: bool(source.write_bytes(b"other")) and False)

    with pytest.raises(BlobDamaged, match="changed while it was stored"):
        store.put(source)

    assert place.files() == {}


def test_damaged_blob_is_mended_when_it_is_stored_again_locally(tmp_path: Path, source: Path) -> None:
    place = Place(str(tmp_path / "store"))
    digest, _ = place.open().put(source)
    place.damage(digest, bytes(len(CONTENT)))

    place.open().put(source)

    assert place.files() == {digest: CONTENT}


def test_training_folder_of_a_store_that_nobody_answers_for_says_so(s3_endpoint: str) -> None:
    store = BlobStore("s3://bucket/artifacts", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable):
        store.training_folder()
