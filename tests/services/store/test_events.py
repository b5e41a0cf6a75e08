"""The log of a job: numbered without gaps, whoever writes, and visible with what it reports."""

import pytest

from services.store import events, jobs
from services.store.database import Database
from services.store.jobs import Lease
from tests.services.store.concurrency import at_once
from tests.services.store.conftest import Connect
from tests.services.store.rows import add_job, add_running_job, events_of, kinds_of

WRITERS, WRITES = 5, 12


def test_events_are_numbered_from_one_in_each_job(database: Database) -> None:
    first, second = add_job(database), add_job(database)
    with database.write() as session:
        events.append(session, second, "note", {})

    assert [event.sequence for event in events_of(database, first)] == [1]
    assert [event.sequence for event in events_of(database, second)] == [1, 2]


def test_event_keeps_its_kind_data_and_time(database: Database) -> None:
    job_id = add_job(database)

    with database.write() as session:
        appended = events.append(session, job_id, "epoch", {"epoch": 3, "loss": 0.1, "layers": ["a", None]})

    read = events_of(database, job_id)[-1]
    assert (read.kind, read.data) == ("epoch", {"epoch": 3, "loss": 0.1, "layers": ["a", None]})
    assert read.at == appended.at


def test_events_of_one_kind_are_those_of_the_job_in_order(database: Database) -> None:
    first, second = add_job(database), add_job(database)
    with database.write() as session:
        for job_id, kind, number in ((first, "note", 1), (first, "other", 2), (second, "note", 3), (first, "note", 4)):
            events.append(session, job_id, kind, {"number": number})

    with database.read() as session:
        assert [event.data["number"] for event in events.of_kind(session, first, "note")] == [1, 4]


def test_events_of_concurrent_writers_are_numbered_without_gaps(database: Database, connect: Connect) -> None:
    lease = add_running_job(database)
    writers = [connect() for _ in range(WRITERS)]

    at_once(*(lambda number=number: _keep_writing(writers[number], lease, number) for number in range(WRITERS)))

    stored = events_of(database, lease.job_id)
    written = [event.data["writer"] for event in stored if event.kind == "note"]
    assert [event.sequence for event in stored] == list(range(1, 2 + WRITERS * WRITES + 1))
    assert sorted(written) == sorted(list(range(WRITERS)) * WRITES)


def test_cancel_request_amid_a_runners_writes_leaves_no_gap(database: Database, connect: Connect) -> None:
    lease = add_running_job(database)
    runner, api = connect(), connect()

    def cancel() -> None:
        with api.write() as session:
            jobs.request_cancel(session, lease.job_id)

    at_once(lambda: _keep_writing(runner, lease, 0), cancel)

    assert [event.sequence for event in events_of(database, lease.job_id)] == list(range(1, 3 + WRITES + 1))
    assert kinds_of(database, lease.job_id).count("cancel_requested") == 1


def test_event_that_was_undone_leaves_no_gap(database: Database) -> None:
    job_id = add_job(database)
    with pytest.raises(RuntimeError, match="power cut"), database.write() as session:
        events.append(session, job_id, "lost", {})
        raise RuntimeError("power cut")

    with database.write() as session:
        events.append(session, job_id, "kept", {})

    assert [(event.sequence, event.kind) for event in events_of(database, job_id)] == [(1, "queued"), (2, "kept")]


def test_event_is_not_visible_before_what_it_reports(database: Database, connect: Connect) -> None:
    job_id, reader = add_job(database), connect()

    with database.write() as session:
        events.append(session, job_id, "note", {})
        during = kinds_of(reader, job_id)

    assert during == ["queued"]
    assert kinds_of(reader, job_id) == ["queued", "note"]


def test_events_after_a_number_come_oldest_first_and_at_most_as_many_as_asked_for(database: Database) -> None:
    job_id = add_job(database)
    with database.write() as session:
        for number in range(2, 8):
            events.append(session, job_id, "note", {"n": number})

    with database.read() as session:
        found = events.after(session, job_id, 2, limit=3)

    assert [event.sequence for event in found] == [3, 4, 5]


def test_nothing_comes_after_the_last_event(database: Database) -> None:
    job_id = add_job(database)

    with database.read() as session:
        assert events.after(session, job_id, 1) == []


def _keep_writing(database: Database, lease: Lease, writer: int) -> None:
    for _ in range(WRITES):
        with jobs.fenced(database, lease) as (session, job):
            events.append(session, job.id, "note", {"writer": writer})
