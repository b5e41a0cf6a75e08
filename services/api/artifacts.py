"""Artifacts: what they are, and their bytes, streamed with range requests; the ETag is the sha256."""

import re
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from services.api.deps import BlobsDep, DatabaseDep
from services.api.models import ArtifactView
from services.api.problems import Problem, ProblemDocument
from services.store import artifacts
from services.store.blobs import BlobMissing
from services.store.models import Artifact

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"])
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": ProblemDocument, "description": "No such artifact."}}


@router.get("/{artifact_id}", summary="Look at an artifact", responses=_UNKNOWN)
def get_artifact(artifact_id: str, database: DatabaseDep) -> ArtifactView:
    """Name, kind, size and hash of an artifact."""
    with database.read() as session:
        return ArtifactView.model_validate(artifacts.get(session, artifact_id))


@router.get(
    "/{artifact_id}/content",
    summary="Download an artifact",
    response_class=Response,
    responses=_UNKNOWN
    | {
        200: {"content": {"application/octet-stream": {}}},
        206: {"description": "The range that was asked for."},
        304: {"description": "Unchanged."},
        416: {"model": ProblemDocument, "description": "The range lies outside the file."},
        503: {"model": ProblemDocument, "description": "The bytes are out of reach."},
    },
)
def download(artifact_id: str, request: Request, database: DatabaseDep, blobs: BlobsDep) -> Response:
    """The bytes of an artifact. Takes one `Range: bytes=a-b`, `If-Range` and `If-None-Match`."""
    with database.read() as session:
        artifact = artifacts.get(session, artifact_id)
    headers = _headers(artifact)
    if _unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range") if request.headers.get("if-range", headers["ETag"]) == headers["ETag"] else None
    span = parse_range(wanted, artifact.size) if wanted else None
    start, end = span or (0, artifact.size)
    headers["Content-Length"] = str(end - start)
    if span:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.size}"
    return StreamingResponse(blobs.read(artifact.sha256, start, end), 206 if span else 200, headers, artifact.media_type)


@router.head("/{artifact_id}/content", include_in_schema=False)
def head(artifact_id: str, request: Request, database: DatabaseDep, blobs: BlobsDep) -> Response:
    """The headers of a download of the whole file."""
    with database.read() as session:
        artifact = artifacts.get(session, artifact_id)
    headers = _headers(artifact)
    if _unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if not blobs.holds(artifact.sha256, artifact.size):
        raise BlobMissing(f"artifact bytes {artifact.sha256} are not in the store")
    return Response(headers=headers | {"Content-Length": str(artifact.size)}, media_type=artifact.media_type)


def _headers(artifact: Artifact) -> dict[str, str]:
    return {
        "ETag": f'"{artifact.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, immutable, max-age=31536000",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(artifact.name)}",
    }


def _unchanged(request: Request, etag: str) -> bool:
    known = request.headers.get("if-none-match", "")
    return known.strip() == "*" or etag in known


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of a single byte range (RFC 9110 §14.1.2); None for a form that may be ignored.

    Raises:
        Problem: 416, the range lies outside the file.
    """
    match = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header.strip())
    if not match or match[1] == match[2] == "":
        return None
    if match[1] == "":
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    if start >= size or start >= end:
        detail = f"{header!r} lies outside the {size} bytes of this artifact"
        raise Problem(416, "range-not-satisfiable", detail, headers={"Content-Range": f"bytes */{size}"})
    return start, end
