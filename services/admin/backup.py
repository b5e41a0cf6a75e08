"""A backup of a running service: its database as of one moment and every artifact that it names, in a folder that says what it holds.

The manifest is written last, so a folder without one is no backup. Artifacts that an earlier backup has left in the folder are
not copied again, and that backup stays until the new one is whole.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import glora_core
from services.admin.dumps import dump, is_sqlite, load, refuse_full
from services.admin.errors import AdminError
from services.admin.schema import refuse_newer
from services.store.blobs import BlobMissing, BlobStore
from services.store.database import Database

MANIFEST = "backup.json"
FORMAT = 1


@dataclass(frozen=True)
class Backup:
    """What a backup holds.

    Attributes:
        format: of the backup itself.
        version: of the software that made it.
        created_at: when, in UTC.
        database: name and sha256 of the database's file.
        artifacts: sizes in bytes by hash.
        revision: of the schema; None where an earlier version did not say.
    """

    format: int
    version: str
    created_at: str
    database: str
    database_sha256: str
    artifacts: dict[str, int]
    revision: str | None = None


def back_up(database: Database, blobs: BlobStore, folder: Path) -> Backup:
    """Write a backup into a folder; an earlier one that is there is replaced at the very end, and its artifacts are used again.

    Raises:
        AdminError: the folder cannot be written, an artifact's bytes are gone or damaged, or PostgreSQL's tools are missing.
        StoreUnavailable: the artifacts are out of reach.
    """
    try:
        (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AdminError(f"cannot write to {folder}: {error.strerror}") from error
    name, files = dump(database, folder)
    for digest, size in files.items():
        _copy_blob(blobs, digest, size, folder / "artifacts" / digest)
    part, manifest = folder / f"{name}.part", folder / f"{MANIFEST}.part"
    moment, revision = datetime.now(UTC).isoformat(), database.revision()
    made = Backup(FORMAT, glora_core.__version__, moment, name, _sha256(part), files, revision)
    manifest.write_text(json.dumps(asdict(made), indent=1))
    part.replace(folder / name)
    manifest.replace(folder / MANIFEST)
    for path in (folder / "artifacts").iterdir():
        if path.name not in files:
            path.unlink()
    return made


def read_manifest(folder: Path) -> Backup:
    """What a folder holds as a backup. Raises AdminError if it is none."""
    try:
        found = Backup(**json.loads((folder / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise AdminError(f"{folder} is no whole backup: {MANIFEST} cannot be read ({error})") from error
    if found.format != FORMAT:
        raise AdminError(f"the backup has format {found.format}, and this software ({glora_core.__version__}) reads {FORMAT}")
    return found


def restore(folder: Path, url: str, blobs: BlobStore) -> Backup:
    """Read a backup into an empty database and artifact store, and bring the schema up to date.

    Everything is checked before anything is written; artifacts come first, so that no row ever lacks its bytes.

    Raises:
        AdminError: the folder is no whole backup, or of newer software, a file is missing or damaged, or the database is not empty.
        StoreUnavailable: the artifact store is out of reach.
    """
    found = read_manifest(folder)
    refuse_newer("the backup", found.revision)
    refuse_full(url)
    if (found.database == "database.sqlite") != is_sqlite(url):
        load(url, folder / found.database)  # refuses
    _check(folder / found.database, found.database_sha256)
    for digest in found.artifacts:
        _check(folder / "artifacts" / digest, digest)
    for digest in found.artifacts:
        blobs.put(folder / "artifacts" / digest)
    load(url, folder / found.database)
    database = Database(url)
    database.migrate()
    database.dispose()
    return found


def _copy_blob(blobs: BlobStore, digest: str, size: int, target: Path) -> None:
    """Fetch an artifact into the backup, unless it is there whole."""
    if target.exists() and target.stat().st_size == size and _sha256(target) == digest:
        return
    try:
        blobs.fetch(digest, target)
    except BlobMissing as error:
        message = (
            f"{error}; `glora admin gc --dry-run` lists what else is missing. Delete the jobs that it belongs to, "
            "or drop what is lost with `glora admin gc --drop-lost`, and run the backup again"
        )
        raise AdminError(message) from error
    except OSError as error:
        if shutil.disk_usage(target.parent).free < size:
            raise AdminError(f"{target.parent} has no room for {size:,} bytes more") from error
        raise


def _check(path: Path, digest: str) -> None:
    if not path.exists():
        raise AdminError(f"the backup lacks {path}")
    if _sha256(path) != digest:
        raise AdminError(f"{path} is damaged: it has another hash than the backup says")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
