"""Downloads that go on where they stopped: after a cut within one call, and from one call, or run, to the next.

What has arrived lies beside the target in a file that is named by the hash of the whole, so that it is never continued with
other bytes. Only what has the right hash takes the target's name.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

_STALLS = 4
_RETRY_SECONDS = 0.5

OnBytes = Callable[[int], None]
Check = Callable[[httpx.Response], None]


class Cut(RuntimeError):
    """The connection broke again and again without a byte between; the message says what is kept."""


class Damaged(RuntimeError):
    """What arrived has another hash than it should have; nothing of it is kept."""


def download(http: httpx.Client, artifact: dict[str, Any], target: Path, on_bytes: OnBytes, check: Check) -> None:
    """Download an artifact's bytes to a file, unless they are there already.

    Args:
        on_bytes: told the number of bytes that are newly there; those found from before come first, in one number.
        check: raises if an answer is a refusal.

    Raises:
        Cut, Damaged; and what `check` raises.
    """
    size, digest = int(artifact["size"]), str(artifact["sha256"])
    if target.exists() and target.stat().st_size == size and _sha256(target) == digest:
        on_bytes(size)
        return
    part = target.with_name(f"{target.name}.{digest[:12]}.part")
    try:
        _complete(http, artifact, part, on_bytes, check)
        if _sha256(part) != digest:
            part.unlink()
            raise Damaged(f"{artifact['name']} arrived damaged: its sha256 is not the one the service names; try again")
        part.replace(target)
    finally:
        if _size(part) == 0:
            part.unlink(missing_ok=True)


def _complete(http: httpx.Client, artifact: dict[str, Any], part: Path, on_bytes: OnBytes, check: Check) -> None:
    """Fetch what is missing of a part file, in as many requests as it takes."""
    size, stalls = int(artifact["size"]), 0
    part.touch()
    if _size(part) > size:
        part.write_bytes(b"")
    on_bytes(_size(part))
    while (have := _size(part)) < size:
        try:
            _continue(http, artifact, part, have, on_bytes, check)
            error = None
        except httpx.TransportError as broken:
            error = broken
        stalls = 0 if _size(part) > have else stalls + 1
        if stalls >= _STALLS:
            kept = f"{_size(part):,} of {size:,} bytes are kept; run the download again to go on from there"
            raise Cut(f"{artifact['name']}: the connection breaks ({error or 'an answer was too short'}); {kept}") from error
        if error is not None:
            time.sleep(_RETRY_SECONDS * stalls)


def _continue(http: httpx.Client, artifact: dict[str, Any], part: Path, have: int, on_bytes: OnBytes, check: Check) -> None:
    headers = {"Range": f"bytes={have}-", "If-Range": f'"{artifact["sha256"]}"'} if have else {}
    with http.stream("GET", f"/v1/artifacts/{artifact['id']}/content", headers=headers) as response:
        check(response)
        with part.open("ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
                file.flush()
                on_bytes(len(chunk))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
