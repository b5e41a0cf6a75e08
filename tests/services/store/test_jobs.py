"""Jobs from creation to their end, and their listing."""

from datetime import UTC, datetime, timedelta

import pytest

from services.store import jobs, lifecycle
from services.store.cursors import cursor_of
from services.store.database import Database
from services.store.errors import NotFound, WrongState
from services.store.models import Job
from tests.services.store.rows import EPOCH, add_job, add_running_job, change_job, contents, events_of, job_of, kinds_of


def test_new_job_is_queued_and_unowned(database: Database) -> None:
    job = job_of(database, add_job(database, "flowers"))

    assert (job.name, job.state, job.request, job.data) == ("flowers", "queued", {"budget": 7}, {"classes": ["a"]})
    assert (job.attempts, job.lease_epoch, job.lease_owner, job.cancel_requested) == (0, 0, None, False)
    assert (job.phase, job.started_at, job.finished_at, job.result, job.failure_reason) == (None, None, None, None, None)


def test_new_job_begins_its_log_with_a_queued_event(database: Database) -> None:
    job_id = add_job(database, "flowers")

    events = [(event.sequence, event.kind, event.data) for event in events_of(database, job_id)]

    assert events == [(1, "queued", {"name": "flowers"})]


def test_jobs_have_ids_of_their_own(database: Database) -> None:
    assert add_job(database) != add_job(database)


def test_unknown_job_is_not_found(database: Database) -> None:
    with pytest.raises(NotFound, match="j0"), database.read() as session:
        jobs.get(session, "j0")


def test_entering_a_phase_is_stored_and_told(database: Database) -> None:
    lease = add_running_job(database)

    with jobs.fenced(database, lease) as (session, job):
        jobs.enter_phase(session, job, "train")

    assert job_of(database, lease.job_id).phase == "train"
    assert [(event.kind, event.data) for event in events_of(database, lease.job_id)][-1] == ("phase", {"phase": "train"})


def test_succeeded_job_keeps_its_result_and_is_nobodys(database: Database) -> None:
    lease = add_running_job(database)

    with jobs.fenced(database, lease) as (session, job):
        jobs.succeed(session, job, {"accuracy": 0.75})

    stored = job_of(database, lease.job_id)
    assert (stored.state, stored.result) == ("succeeded", {"accuracy": 0.75})
    assert (stored.lease_owner, stored.lease_expires_at) == (None, None)
    assert stored.finished_at is not None
    assert kinds_of(database, lease.job_id) == ["queued", "started", "succeeded"]


def test_failed_job_keeps_why_and_tells_its_user_no_traceback(database: Database) -> None:
    lease = add_running_job(database)

    with jobs.fenced(database, lease) as (session, job):
        jobs.fail(session, job, "diverged", "the loss is not finite", "Traceback …")

    stored = job_of(database, lease.job_id)
    assert (stored.state, stored.failure_reason) == ("failed", "diverged")
    assert (stored.failure_message, stored.failure_detail) == ("the loss is not finite", "Traceback …")
    assert (stored.lease_owner, stored.lease_expires_at) == (None, None)
    assert stored.finished_at is not None
    last = events_of(database, lease.job_id)[-1]
    assert (last.kind, last.data) == ("failed", {"reason": "diverged", "message": "the loss is not finite"})


def test_cancelling_a_queued_job_ends_it_at_once(database: Database) -> None:
    job_id = add_job(database)

    with database.write() as session:
        jobs.request_cancel(session, job_id)

    stored = job_of(database, job_id)
    assert stored.state == "cancelled"
    assert stored.finished_at is not None
    assert kinds_of(database, job_id) == ["queued", "cancelled"]


def test_cancelling_a_running_job_leaves_it_to_its_runner(database: Database) -> None:
    lease = add_running_job(database)

    with database.write() as session:
        jobs.request_cancel(session, lease.job_id)

    stored = job_of(database, lease.job_id)
    assert (stored.state, stored.cancel_requested, stored.lease_owner) == ("running", True, lease.owner)
    assert kinds_of(database, lease.job_id) == ["queued", "started", "cancel_requested"]


def test_cancelling_a_running_job_again_is_told_once(database: Database) -> None:
    lease = add_running_job(database)

    with database.write() as session:
        jobs.request_cancel(session, lease.job_id)
    with database.write() as session:
        jobs.request_cancel(session, lease.job_id)

    assert kinds_of(database, lease.job_id) == ["queued", "started", "cancel_requested"]


@pytest.mark.parametrize("state", sorted(jobs.FINAL))
def test_cancelling_a_finished_job_is_refused_and_changes_nothing(database: Database, state: str) -> None:
    job_id = add_job(database, state=state)
    before = contents(database)

    with pytest.raises(WrongState, match=state), database.write() as session:
        jobs.request_cancel(session, job_id)

    assert contents(database) == before


def test_cancelling_an_unknown_job_is_refused(database: Database) -> None:
    with pytest.raises(NotFound, match="j0"), database.write() as session:
        jobs.request_cancel(session, "j0")


def test_runner_ends_its_job_as_cancelled(database: Database) -> None:
    lease = add_running_job(database)
    with database.write() as session:
        jobs.request_cancel(session, lease.job_id)

    with jobs.fenced(database, lease) as (session, job):
        jobs.cancelled(session, job)

    stored = job_of(database, lease.job_id)
    assert (stored.state, stored.lease_owner, stored.lease_expires_at) == ("cancelled", None, None)
    assert kinds_of(database, lease.job_id)[-2:] == ["cancel_requested", "cancelled"]


def test_listing_gives_the_newest_job_first(database: Database) -> None:
    add_job(database, "middle", created_at=EPOCH + timedelta(days=1))
    add_job(database, "oldest", created_at=EPOCH)
    add_job(database, "newest", created_at=EPOCH + timedelta(days=2))

    assert [job.name for job in _page(database)] == ["newest", "middle", "oldest"]


def test_listing_can_ask_for_one_state(database: Database) -> None:
    add_job(database, "waits")
    add_job(database, "is done", state="succeeded")

    assert [job.name for job in _page(database, state="succeeded")] == ["is done"]


def test_pages_hold_each_job_once_though_all_were_made_at_the_same_moment(database: Database) -> None:
    made = [add_job(database, created_at=EPOCH) for _ in range(7)]

    first = _page(database, limit=3)
    second = _page(database, limit=3, before=cursor_of(first[-1]))
    third = _page(database, limit=3, before=cursor_of(second[-1]))

    assert [len(page) for page in (first, second, third)] == [3, 3, 1]
    assert [job.id for job in (*first, *second, *third)] == sorted(made, reverse=True)


def test_next_page_is_of_the_same_state_and_older(database: Database) -> None:
    for day, state in enumerate(["queued", "failed", "queued", "failed", "queued"]):
        add_job(database, f"day {day}", state=state, created_at=EPOCH + timedelta(days=day))
    first = _page(database, state="queued", limit=1)

    rest = _page(database, state="queued", before=cursor_of(first[0]))

    assert [job.name for job in (*first, *rest)] == ["day 4", "day 2", "day 0"]


def test_page_after_the_last_is_empty(database: Database) -> None:
    add_job(database)

    assert _page(database, before=cursor_of(_page(database)[0])) == []


@pytest.mark.parametrize("cursor", ["j0", "", "1-", "x-j0", "9" * 40 + "-j0"])
def test_page_from_what_is_no_cursor_on_is_not_found(cursor: str, database: Database) -> None:
    with pytest.raises(NotFound, match="no place in this list"):
        _page(database, before=cursor)


def test_page_goes_on_where_the_last_job_of_the_one_before_was_deleted(database: Database) -> None:
    made = [add_job(database, state="succeeded", created_at=EPOCH + timedelta(days=day)) for day in range(4)]
    first = _page(database, limit=2)
    with database.write() as session:
        for job in first:
            lifecycle.delete(session, job.id)

    assert [job.id for job in _page(database, before=cursor_of(first[-1]))] == made[1::-1]


def test_page_is_not_disturbed_by_a_job_that_came_meanwhile(database: Database) -> None:
    older = [add_job(database, created_at=EPOCH + timedelta(hours=hour)) for hour in range(4)]
    first = _page(database, limit=2)
    change_job(database, add_job(database), created_at=datetime.now(UTC))

    second = _page(database, limit=2, before=cursor_of(first[-1]))

    assert [job.id for job in (*first, *second)] == older[::-1]


def _page(database: Database, *, state: str | None = None, before: str | None = None, limit: int = 50) -> list[Job]:
    with database.read() as session:
        return jobs.page(session, state=state, before=before, limit=limit)
