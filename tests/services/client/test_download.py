"""Downloads that are cut go on where they stopped, within a call and in a later one, and never with other bytes."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from services.client import Client, ServiceError
from services.store.blobs import BlobStore
from services.store.database import Database
from tests.services.api import stock
from tests.services.api.listening import Listening

LARGE = bytes(range(256)) * (5 * 4096)
"""Five pieces of what a blob is read in."""


class Line:
    """What lies between client and service: notes the ranges that are asked for, and may spoil or cut answers with a body.

    Args:
        cuts: pieces of the body that arrive before the connection breaks, one number per answer; later answers are whole.
        spoil: what happens to the pieces.
    """

    def __init__(self, app: FastAPI, cuts: list[int], spoil: Callable[[bytes], bytes] = lambda piece: piece) -> None:
        self._app, self._cuts, self._spoil = app, cuts, spoil
        self.ranges: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].endswith("/content"):
            return await self._app(scope, receive, send)
        self.ranges.append(dict(scope["headers"]).get(b"range", b"").decode())
        left = self._cuts.pop(0) if self._cuts else None

        async def pass_on(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.body" and message.get("body"):
                if left == 0:
                    raise ConnectionResetError("cut on purpose")
                left = None if left is None else left - 1
                message = message | {"body": self._spoil(message["body"])}
            await send(message)

        await self._app(scope, receive, pass_on)


@pytest.fixture
def finished(database: Database, blobs: BlobStore, tmp_path: Path) -> str:
    """A succeeded job whose checkpoint is one large file."""
    lease = stock.add_running(database)
    stock.add_artifact(database, blobs, tmp_path / "made", lease.job_id, "merged", "model.safetensors", LARGE)
    stock.succeed(database, lease)
    return lease.job_id


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.client.download._RETRY_SECONDS", 0.01)


def fetch(line: Line, job_id: str, folder: Path) -> tuple[bytes, int]:
    """The downloaded file, and how many bytes were reported."""
    seen: list[int] = []
    with Listening(line) as server:
        Client(server.url).download(job_id, folder, seen.append)
    return (folder / "model.safetensors").read_bytes(), sum(seen)


def test_cut_download_goes_on_where_it_stopped(app: FastAPI, finished: str, tmp_path: Path) -> None:
    line = Line(app, [2, 1])

    assert fetch(line, finished, tmp_path / "out") == (LARGE, len(LARGE))

    starts = [int(asked.removeprefix("bytes=").removesuffix("-") or 0) for asked in line.ranges]
    assert starts[0] == 0 < starts[1] < starts[2]
    assert len(starts) == 3


def test_download_given_up_is_taken_up_by_the_next_call(app: FastAPI, finished: str, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="bytes are kept; run the download again"):
        fetch(Line(app, [2] + [0] * 9), finished, tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()
    line = Line(app, [])

    assert fetch(line, finished, tmp_path / "out")[0] == LARGE

    assert len(line.ranges) == 1 and line.ranges[0].startswith("bytes=")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]


def test_file_that_is_there_already_is_not_fetched_again(app: FastAPI, finished: str, tmp_path: Path) -> None:
    fetch(Line(app, []), finished, tmp_path / "out")
    line = Line(app, [])

    assert fetch(line, finished, tmp_path / "out") == (LARGE, len(LARGE))
    assert line.ranges == []


def test_bytes_damaged_on_the_way_are_refused_and_not_kept(app: FastAPI, finished: str, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"model\.safetensors arrived damaged"):
        fetch(Line(app, [], lambda piece: bytes(len(piece))), finished, tmp_path / "out")

    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("left", [b"", LARGE[:5], LARGE, LARGE + b"more"])
def test_whatever_a_part_file_holds_the_whole_is_right(left: bytes, app: FastAPI, finished: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / f"model.safetensors.{hashlib.sha256(LARGE).hexdigest()[:12]}.part").write_bytes(left)

    assert fetch(Line(app, []), finished, folder) == (LARGE, len(LARGE))


def test_part_of_other_bytes_is_noticed(app: FastAPI, finished: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / f"model.safetensors.{hashlib.sha256(LARGE).hexdigest()[:12]}.part").write_bytes(b"other")

    with pytest.raises(ServiceError, match="arrived damaged"):
        fetch(Line(app, []), finished, folder)

    assert fetch(Line(app, []), finished, folder)[0] == LARGE
