"""The event log of a job, as a JSON page and as a stream over a real connection."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from services.api import events as api_events
from services.store import events, jobs
from services.store.database import Database
from tests.services.api import stock
from tests.services.api.listening import Listening

JSON = {"Accept": "application/json"}


@contextmanager
def stream(server: Listening, job_id: str, query: str = "", headers: dict[str, str] | None = None) -> Iterator[Iterator[dict[str, str]]]:
    """Events as they arrive, each as its fields of the wire format."""
    url = f"{server.url}/v1/jobs/{job_id}/events{query}"
    with httpx.stream("GET", url, headers={"Accept": "text/event-stream"} | (headers or {}), timeout=20) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _parsed(response)


def _parsed(response: httpx.Response) -> Iterator[dict[str, str]]:
    """Events end with an empty line, and only CR and LF end lines (httpx's own `iter_lines` splits at more)."""
    rest = ""
    for text in response.iter_text():
        *blocks, rest = (rest + text).replace("\r\n", "\n").split("\n\n")
        for block in blocks:
            event = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if event:
                yield event


@pytest.fixture
def finished(database: Database) -> str:
    """A job with the events queued, started, phase, phase, succeeded."""
    lease = stock.add_running(database)
    stock.emit(database, lease, "prepare")
    stock.emit(database, lease, "train")
    stock.succeed(database, lease)
    return lease.job_id


KINDS = ["queued", "started", "phase", "phase", "succeeded"]


def test_json_page_holds_the_events_in_order(http: TestClient, finished: str) -> None:
    rows = http.get(f"/v1/jobs/{finished}/events", headers=JSON).json()

    assert [row["sequence"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["kind"] for row in rows] == KINDS
    assert rows[2]["data"] == {"phase": "prepare"}


@pytest.mark.parametrize(("after", "expected"), [(0, [1, 2, 3, 4, 5]), (3, [4, 5]), (5, []), (99, [])])
def test_json_page_starts_after_the_given_number(after: int, expected: list[int], http: TestClient, finished: str) -> None:
    rows = http.get(f"/v1/jobs/{finished}/events", params={"after": after}, headers=JSON).json()

    assert [row["sequence"] for row in rows] == expected


def test_json_page_of_a_running_job_does_not_wait(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)

    rows = http.get(f"/v1/jobs/{lease.job_id}/events", headers=JSON).json()

    assert [row["kind"] for row in rows] == ["queued", "started"]


@pytest.mark.parametrize("after", ["-1", "x", "1.5"])
def test_number_to_start_after_that_is_none_is_refused(after: str, http: TestClient, finished: str) -> None:
    response = http.get(f"/v1/jobs/{finished}/events", params={"after": after}, headers=JSON)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "after"


def test_stream_of_a_finished_job_tells_all_and_ends(server: Listening, http: TestClient, finished: str) -> None:
    with stream(server, finished) as arriving:
        received = list(arriving)

    page: list[dict[str, Any]] = http.get(f"/v1/jobs/{finished}/events", headers=JSON).json()
    assert [event["id"] for event in received] == ["1", "2", "3", "4", "5"]
    assert [event["event"] for event in received] == KINDS
    assert [httpx.Response(200, text=event["data"]).json() for event in received] == page


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ("", {"Last-Event-ID": "3"}, ["4", "5"]),
        ("?after=3", {}, ["4", "5"]),
        ("?after=2", {"Last-Event-ID": "4"}, ["5"]),
        ("?after=4", {"Last-Event-ID": "2"}, ["5"]),
        ("?after=5", {}, []),
    ],
)
def test_stream_resumes_after_the_last_event_that_was_seen(
    query: str, headers: dict[str, str], expected: list[str], server: Listening, finished: str
) -> None:
    with stream(server, finished, query, headers) as arriving:
        received = [event["id"] for event in arriving]

    assert received == expected


def test_stream_delivers_what_is_committed_while_it_is_open_and_ends_with_the_job(server: Listening, database: Database) -> None:
    lease = stock.add_running(database)

    with stream(server, lease.job_id) as arriving:
        seen = [next(arriving)["event"], next(arriving)["event"]]
        stock.emit(database, lease, "search")
        seen.append(next(arriving)["event"])
        stock.succeed(database, lease)
        seen += [event["event"] for event in arriving]

    assert seen == ["queued", "started", "phase", "succeeded"]


def test_stream_ends_when_the_job_is_cancelled(server: Listening, database: Database) -> None:
    job_id = stock.add_job(database)

    with stream(server, job_id) as arriving:
        seen = [next(arriving)["event"]]
        with database.write() as session:
            jobs.request_cancel(session, job_id)
        seen += [event["event"] for event in arriving]

    assert seen == ["queued", "cancelled"]


def test_several_readers_of_one_job_all_receive_everything(server: Listening, database: Database) -> None:
    lease = stock.add_running(database)

    with stream(server, lease.job_id) as one, stream(server, lease.job_id) as other:
        next(one), next(other)
        stock.succeed(database, lease)
        rest = [[event["event"] for event in one], [event["event"] for event in other]]

    assert rest == [["started", "succeeded"]] * 2


def test_event_that_spans_lines_arrives_as_one(server: Listening, http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.fail(database, lease, "first line\nsecond line\r\n\r\ndata: third — ü \u2028")

    with stream(server, lease.job_id) as arriving:
        received = list(arriving)

    last = httpx.Response(200, text=received[-1]["data"]).json()
    assert len(received) == 3
    assert last["data"]["message"] == "first line\nsecond line\r\n\r\ndata: third — ü \u2028"


@pytest.fixture
def long(database: Database) -> str:
    """A finished job with 1,201 events."""
    lease = stock.add_running(database)
    with jobs.fenced(database, lease) as (session, job):
        for number in range(1198):
            events.append(session, job.id, "epoch", {"epoch": number})
    stock.succeed(database, lease)
    return lease.job_id


def test_json_page_is_bounded_and_the_next_one_goes_on_where_it_ends(http: TestClient, long: str) -> None:
    pages, after = [], 0
    while page := http.get(f"/v1/jobs/{long}/events", params={"after": after}, headers=JSON).json():
        pages.append(len(page))
        after = page[-1]["sequence"]

    assert pages == [500, 500, 201]


def test_stream_of_more_events_than_one_page_is_complete(server: Listening, long: str) -> None:
    with stream(server, long) as arriving:
        numbers = [int(event["id"]) for event in arriving]

    assert numbers == list(range(1, 1202))


def test_stream_of_an_unknown_job_is_a_problem_not_a_stream(server: Listening) -> None:
    response = httpx.get(f"{server.url}/v1/jobs/j000/events", headers={"Accept": "text/event-stream"})

    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


def test_user_has_so_many_streams_open_and_no_more(server: Listening, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_events, "_MOST_STREAMS", 2)
    job_id = stock.add_job(database)
    url = f"{server.url}/v1/jobs/{job_id}/events"
    with stream(server, job_id) as first, stream(server, job_id) as second:
        next(first), next(second)
        refused = httpx.get(url, timeout=20)
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:glora:problem:too-many-streams")
        assert httpx.get(url, headers=JSON, timeout=20).status_code == 200
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with stream(server, job_id) as third:
                assert next(third)["event"] == "queued"
            return
        except AssertionError:
            time.sleep(0.2)  # until the service has seen that the others are closed
    pytest.fail("closed streams still count")
