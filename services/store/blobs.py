"""Artifact bytes: content-addressed files under an fsspec URL, a local folder or an S3-compatible bucket.

A blob's name is its sha256, so writing it twice is harmless. Rows in SQL are made by `services.store.artifacts`, and
only after `put` has returned: bytes first, row second. Bytes are hashed as they are written, and again when they are read as a
whole. Large files go to S3 in parts. What no row names is found and removed by `services.store.garbage`.
"""

import hashlib
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from botocore.exceptions import BotoCoreError
from fsspec import AbstractFileSystem

log = logging.getLogger("glora.blobs")

_CHUNK = 1 << 20
_PART = 16 << 20
"""Bytes of one part of an upload to S3; a file of less than two parts goes up at once."""

_REMOVALS = 3
"""Times that a folder is removed which is still there: whoever removes it as well makes a removal stop in its midst."""

_FRESH_SECONDS = 1800.0
"""A blob on S3 that is stored once more is written anew if it is older, so that a garbage collection sees that it is wanted."""


_OURS = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}(\.[0-9a-f]{8}\.part)*")
"""Where blobs lie, and what broken writes and removals leave beside them; other files are not ours."""

TRAINING_NAME_LENGTH = 16


def training_name(supernet_key: str) -> str:
    """What the folders of a supernet's training checkpoints begin with, one for each attempt: whoever trains it goes on from them."""
    return supernet_key[:TRAINING_NAME_LENGTH]


class BlobMissing(LookupError):
    """A row names bytes that the artifact store does not hold, or holds with another size."""


class BlobDamaged(RuntimeError):
    """A file changed while it was stored; nothing was kept of it."""


class StoreUnavailable(OSError):
    """The artifact store cannot be reached; worth another try."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the store: where it is, its name (a blob's is its hash), its size in bytes, and when it was last written."""

    path: str
    name: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload in parts to S3 that nobody has ended: its parts are kept, and paid for, for ever. Where it goes, and when it began."""

    path: str
    identity: str
    began: datetime


class BlobStore:
    """Bytes by their sha256.

    Args:
        url: fsspec URL of the folder that holds the blobs.
        endpoint: endpoint of an S3-compatible store, where it is not the provider's own.
    """

    def __init__(self, url: str, endpoint: str = "") -> None:
        self._local = not url.startswith("s3://")
        self._fs, self._root = fsspec.core.url_to_fs(url, **({} if self._local else _s3_options(endpoint)))

    def put(self, source: Path) -> tuple[str, int]:
        """Store a file durably; returns its sha256 (hex) and its size in bytes. Raises StoreUnavailable, BlobDamaged.

        A blob that is there already counts as new to a garbage collection.
        """
        digest, size = _hash(source)
        target = self._path(digest)
        with _reachable():
            if not (self._complete(target, size) and self._refreshed(target, digest)):
                self._write(source, target, digest)
        return digest, size

    def read(self, digest: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`, in chunks; the hash of a whole blob is checked before its last chunk.

        Raises:
            BlobMissing, StoreUnavailable: before the first chunk.
            BlobMissing: before the last chunk: the bytes are damaged.
        """
        try:
            with _reachable():
                file = self._fs.open(self._path(digest), "rb")
        except FileNotFoundError as error:
            raise BlobMissing(f"artifact bytes {digest} are not in the store") from error
        whole = start == 0 and (end is None or end >= file.seek(0, os.SEEK_END))
        chunks = _chunks(file, start, end)
        return _verified(chunks, digest) if whole else chunks

    def fetch(self, digest: str, target: Path) -> Path:
        """Copy a blob to a local file and check its hash.

        Raises:
            BlobMissing: it is gone or damaged; no file is left.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        chunks = self.read(digest)
        with _part_of(target) as part:
            with _reachable(), part.open("wb") as file:
                file.writelines(chunks)
            if _hash(part)[0] != digest:
                raise BlobMissing(f"artifact bytes {digest} are damaged in the store")
            part.replace(target)
        return target

    def holds(self, digest: str, size: int) -> bool:
        """Whether a blob of that size is there. Raises StoreUnavailable."""
        with _reachable():
            return self._complete(self._path(digest), size)

    def check(self) -> None:
        """Raise StoreUnavailable if the store cannot be reached; makes its folder or bucket only where there is none."""
        container = self._root if self._local else self._root.partition("/")[0]
        with _reachable():
            if not self._fs.isdir(container):
                self._fs.makedirs(self._root, exist_ok=True)
            self._fs.ls(container)

    def training_folder(self) -> tuple[AbstractFileSystem, str]:
        """File system and folder for training checkpoints, beside the blobs; created if needed. Raises StoreUnavailable."""
        folder = f"{self._root}/training"
        with _reachable():
            self._fs.makedirs(folder, exist_ok=True)
        return self._fs, folder

    def remove_training(self, job_id: str) -> None:
        """Remove a job's training checkpoints, or a supernet's by `training_name`, whichever there are. Raises StoreUnavailable."""
        for name in self.training_names():
            if name.startswith(f"{job_id}-"):
                self.remove_training_folder(name)

    def training_names(self) -> list[str]:
        """Names of all folders of training checkpoints. Raises StoreUnavailable."""
        with _reachable():
            folder = f"{self._root}/training"
            found = self._fs.ls(folder, detail=False) if self._fs.exists(folder) else []
        return [path.rstrip("/").rpartition("/")[2] for path in found]

    def remove_training_folder(self, name: str) -> None:
        """Remove one folder of training checkpoints, which others may be removing too. Raises StoreUnavailable."""
        path = f"{self._root}/training/{name}"
        with _reachable():
            for _ in range(_REMOVALS):
                if not self._fs.exists(path):
                    return
                with suppress(FileNotFoundError):
                    self._fs.rm(path, recursive=True)

    def listing(self) -> list[StoredFile]:
        """Every blob that is kept here, and what broken writes have left; other files are left out. Raises StoreUnavailable."""
        with _reachable():
            found = self._fs.find(self._root, detail=True) if self._fs.exists(self._root) else {}
        return [self._stored_file(path, info) for path, info in found.items() if _OURS.fullmatch(path.removeprefix(f"{self._root}/"))]

    def uploads(self) -> list[Upload]:
        """Uploads in parts of blobs and training checkpoints that are under way, or were left off. Raises StoreUnavailable.

        None where a store does not tell, or does not tell us; those of which it does not say when they began are left out.
        """
        if self._local:
            return []
        bucket, _, prefix = self._root.partition("/")
        found, after = list[dict[str, Any]](), dict[str, str]()
        try:
            with _reachable():
                while page := self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **after):
                    found += page.get("Uploads", [])
                    if not page.get("IsTruncated"):
                        break
                    after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
        except StoreUnavailable:
            raise
        except FileNotFoundError:  # there is no bucket yet
            return []
        except OSError as error:
            log.warning("the store does not list uploads in parts: %s", error)
        uploads = [Upload(f"{bucket}/{each['Key']}", each["UploadId"], each["Initiated"]) for each in found if "Initiated" in each]
        return [upload for upload in uploads if self._ours(upload.path)]

    def abort(self, upload: Upload) -> None:
        """Drop an upload and its parts; one that is over by now is left alone. Raises StoreUnavailable."""
        bucket, _, key = upload.path.partition("/")
        with _reachable(), suppress(FileNotFoundError):
            self._fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload.identity)

    def _ours(self, path: str) -> bool:
        place = path.removeprefix(f"{self._root}/")
        return place != path and (place.startswith("training/") or _OURS.fullmatch(place) is not None)

    def remove_if_untouched(self, file: StoredFile, before: datetime) -> bool:
        """Remove a file unless it was written, or stored once more, since; returns whether it was. Raises StoreUnavailable.

        A local file is put aside first, so that whoever stores it in this very moment either makes it look new, or finds it
        gone and writes it again. On S3 the moment between the look and the removal remains; what is wanted is never old there.
        """
        with _reachable():
            if not self._local:
                aged = self._fs.info(file.path)["LastModified"] < before
                if aged:
                    self._fs.rm_file(file.path)
                return bool(aged)
        place, aside = Path(file.path), Path(f"{file.path}.{secrets.token_hex(4)}.part")
        try:
            place.replace(aside)
        except FileNotFoundError:
            return False
        if _modified(aside) >= before:
            aside.replace(place)
            return False
        aside.unlink()
        return True

    def _stored_file(self, path: str, info: dict[str, Any]) -> StoredFile:
        modified = datetime.fromtimestamp(info["mtime"], UTC) if self._local else info["LastModified"]
        return StoredFile(path, path.rpartition("/")[2], int(info["size"]), modified)

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"

    def _complete(self, path: str, size: int) -> bool:
        try:
            return bool(self._fs.info(path)["size"] == size)
        except FileNotFoundError:
            return False

    def _refreshed(self, target: str, digest: str) -> bool:
        """Make a blob that is there look new; False if it has to be written again: it is damaged, just removed, or old on S3."""
        if not self._local:
            age = datetime.now(UTC) - self._fs.info(target)["LastModified"]
            return bool(age.total_seconds() < _FRESH_SECONDS)
        try:
            os.utime(target)
            return _hash(Path(target))[0] == digest
        except FileNotFoundError:
            return False

    def _write(self, source: Path, target: str, digest: str) -> None:
        """Local: write beside the target, flush to disk, rename. S3: an upload, which is atomic, in parts if it is large."""
        folder = target.rpartition("/")[0]
        new = self._local and not self._fs.exists(folder)
        self._fs.makedirs(folder, exist_ok=True)
        if not self._local:
            self._fs.put_file(str(source), target, chunksize=_PART)
            if _hash(source)[0] != digest:  # in transit the bytes are checked by S3's own sums
                self._fs.rm_file(target)
                raise BlobDamaged(f"{source} changed while it was stored")
            return
        with _part_of(Path(target)) as part:
            _copy_hashed(source, part, digest)
            part.replace(target)
        _sync_folder(Path(target).parent)
        if new:
            _sync_folder(Path(self._root))


@contextmanager
def _reachable() -> Iterator[None]:
    """Turns what an S3 client raises for a store out of reach into StoreUnavailable."""
    try:
        yield
    except (BotoCoreError, ConnectionError, TimeoutError) as error:
        raise StoreUnavailable(f"artifact store out of reach: {error}") from error


@contextmanager
def _part_of(target: Path) -> Iterator[Path]:
    """A name beside the target to write to first; whatever happens, nothing is left of it."""
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _copy_hashed(source: Path, part: Path, digest: str) -> None:
    """Copy a file to disk for good. Raises BlobDamaged if what was copied has another hash."""
    copied = hashlib.sha256()
    with source.open("rb") as read, part.open("wb") as write:
        while chunk := read.read(_CHUNK):
            copied.update(chunk)
            write.write(chunk)
        write.flush()
        os.fsync(write.fileno())
    if copied.hexdigest() != digest:
        raise BlobDamaged(f"{source} changed while it was stored")


def _verified(chunks: Iterator[bytes], digest: str) -> Iterator[bytes]:
    """The chunks, the last of them only if all together have the hash. Raises BlobMissing otherwise."""
    seen, held = hashlib.sha256(), b""
    for chunk in chunks:
        if held:
            yield held
        seen.update(chunk)
        held = chunk
    if seen.hexdigest() != digest:
        raise BlobMissing(f"artifact bytes {digest} are damaged in the store")
    if held:
        yield held


def _sync_folder(folder: Path) -> None:
    """Make a rename inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _s3_options(endpoint: str) -> dict[str, Any]:
    """No listing cache, which would hide a lost store, and short patience, so that a health check answers in seconds."""
    client = {"endpoint_url": endpoint} if endpoint else {}
    patience = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}
    return {"client_kwargs": client, "config_kwargs": patience, "use_listings_cache": False}


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _hash(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, path.stat().st_size


def _chunks(file: Any, start: int, end: int | None) -> Iterator[bytes]:
    with file:
        file.seek(start)
        left = float("inf") if end is None else end - start
        while left > 0 and (chunk := file.read(int(min(_CHUNK, left)))):
            left -= len(chunk)
            yield chunk
