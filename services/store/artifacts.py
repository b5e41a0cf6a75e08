"""Rows of artifacts. A row is made only for bytes that `blobs.BlobStore.put` has already stored."""

import secrets
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.store.blobs import BlobStore
from services.store.errors import NotFound
from services.store.models import Artifact

MEDIA_TYPES = {".json": "application/json", ".md": "text/markdown", ".safetensors": "application/octet-stream"}


def stored(blobs: BlobStore, path: Path, kind: str, job_id: str | None) -> Artifact:
    """Store a file's bytes and return the row to add for them, in whatever transaction makes them known."""
    digest, size = blobs.put(path)
    return Artifact(
        id=f"a{secrets.token_hex(6)}",
        job_id=job_id,
        kind=kind,
        name=path.name,
        media_type=MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
        size=size,
        sha256=digest,
        created_at=datetime.now(UTC),
    )


def get(session: Session, artifact_id: str) -> Artifact:
    """An artifact by its id. Raises NotFound."""
    artifact = session.get(Artifact, artifact_id)
    if artifact is None:
        raise NotFound(f"no artifact {artifact_id!r}")
    return artifact


def of_job(session: Session, job_id: str) -> list[Artifact]:
    """A job's artifacts, in the order they were made."""
    return list(session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.created_at, Artifact.id)))
