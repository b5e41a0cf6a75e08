"""A job's place in the queue, from counts: the very place that playing the queue out would give, for one job and for a page."""

import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from services.store import claims, clock, jobs, lifecycle, places
from services.store.database import Database
from services.store.models import Job
from services.store.queue import Quotas
from tests.services.store.queue_reference import in_order
from tests.services.store.rows import EPOCH, add_job, add_running_job, add_supernet, change_job, claim, events_of, expire, job_of

KEY = "k" * 20


def _fill(database: Database, chance: random.Random) -> tuple[Counter[str], set[str]]:
    """A queue of jobs of several users, some of which run others; gives how many each runs, and who is held back."""
    running, held = Counter[str](), set[str]()
    with database.write() as session:
        now = clock.now(session)
    maker = add_running_job(database)
    change_job(database, maker.job_id, user_name="maker")
    running["maker"] += 1
    with jobs.fenced(database, maker) as (session, _):
        claims.take(session, maker, [KEY])
    for _ in range(chance.randint(0, 6)):
        user = f"user{chance.randrange(4)}"
        add_job(database, user_name=user, state="running", lease_expires_at=now + timedelta(hours=1))
        running[user] += 1
    for number in range(chance.randint(1, 25)):
        waits: dict[str, Any] = chance.choice(
            [{}, {}, {}, {"next_try_at": now + timedelta(hours=1)}, {"awaited_key": KEY}, {"awaited_key": "free"}]
        )
        columns = {"user_name": f"user{chance.randrange(4)}", "priority": chance.choice([0, 0, 5, -5])}
        when = EPOCH + timedelta(seconds=chance.randrange(6))  # several of one age, told apart by their ids
        job_id = add_job(database, f"job {number}", **columns, created_at=when, **waits)
        if waits and waits.get("awaited_key") != "free":
            held.add(job_id)
    return running, held


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("limit", [None, 1, 3])
def test_place_of_every_job_is_the_one_that_playing_the_queue_gives(database: Database, seed: int, limit: int | None) -> None:
    running, held = _fill(database, random.Random(seed))
    with database.read() as session:
        queued = list(session.scalars(select(Job).where(Job.state == "queued")))
        page = places.waiting(session, Quotas(running_jobs=limit), session.scalars(select(Job)).all())
        alone = {job.id: places.waiting(session, Quotas(running_jobs=limit), [job])[job.id] for job in queued}

    assert sorted(page, key=lambda job_id: page[job_id].position) == in_order(queued, running, limit, held)
    assert sorted(place.position for place in page.values()) == list(range(1, len(queued) + 1))
    assert [(place.position, place.reason) for place in alone.values()] == [(page[key].position, page[key].reason) for key in alone]
    assert {job_id for job_id, place in page.items() if place.reason in ("retry", "supernet")} == held


def test_jobs_that_are_not_queued_have_no_place(database: Database) -> None:
    add_running_job(database)
    add_job(database, state="paused")

    with database.read() as session:
        assert places.waiting(session, jobs.UNLIMITED, session.scalars(select(Job)).all()) == {}


def _give_way(database: Database) -> tuple[jobs.Lease, jobs.Lease]:
    """A job that makes a supernet, and one that waits for it in the queue; both as their leases were."""
    maker, waiter = add_running_job(database), add_running_job(database)
    with jobs.fenced(database, maker) as (session, _):
        claims.take(session, maker, [KEY])
    with jobs.fenced(database, waiter) as (session, job):
        jobs.give_way(session, job, KEY, maker.job_id)
    return maker, waiter


def test_job_that_gave_way_waits_in_the_queue_and_says_for_what(database: Database) -> None:
    maker, waiter = _give_way(database)

    assert claim(database) is None
    job = job_of(database, waiter.job_id)
    assert (job.state, job.attempts, job.waiting_for) == ("queued", 0, maker.job_id)
    with database.read() as session:
        place = places.waiting(session, jobs.UNLIMITED, [job])[job.id]
    assert (place.position, place.of, place.reason) == (1, 1, "supernet")
    assert place.message == f"job {maker.job_id} is training the supernet, or a finalist, that it needs"
    assert events_of(database, waiter.job_id)[-1].data == {"attempts": 0, "supernet": KEY, "job": maker.job_id}


def test_job_that_gave_way_goes_on_once_the_supernet_is_there(database: Database) -> None:
    maker, waiter = _give_way(database)
    with jobs.fenced(database, maker) as (session, _):
        add_supernet(session, KEY)
        claims.drop(session, maker, [KEY])

    again = claim(database)

    assert again is not None and (again.job_id, again.epoch) == (waiter.job_id, 2)
    job = job_of(database, waiter.job_id)
    assert (job.waiting_for, job.awaited_key) == (None, None)
    with database.read() as session:
        assert claims.holder(session, KEY) is None


@pytest.mark.parametrize("end", ["lease runs out", "cancelled", "paused", "failed", "given up"])
def test_of_those_that_gave_way_one_goes_on_when_the_maker_is_gone_and_makes_it_for_the_others(database: Database, end: str) -> None:
    maker, first = _give_way(database)
    second = add_running_job(database)
    with jobs.fenced(database, second) as (session, job):
        jobs.give_way(session, job, KEY, maker.job_id)
    if end == "lease runs out":
        expire(database, maker.job_id)
        change_job(database, maker.job_id, priority=-1)
    else:
        with jobs.fenced(database, maker) as (session, job):
            if end == "given up":
                claims.drop(session, maker, [KEY])
            else:
                jobs.fail(session, job, "diverged", "") if end == "failed" else {"cancelled": jobs.cancelled, "paused": jobs.paused}[end](
                    session, job
                )

    again = claim(database)

    assert again is not None and again.job_id == first.job_id
    with database.read() as session:
        assert claims.holder(session, KEY) == first.job_id
        told = places.waiting(session, jobs.UNLIMITED, [jobs.get(session, second.job_id)])
    assert told[second.job_id].message == f"job {first.job_id} is training the supernet, or a finalist, that it needs"


def test_job_that_gave_way_can_be_paused_and_cancelled(database: Database) -> None:
    _, waiter = _give_way(database)
    with database.write() as session:
        lifecycle.request_pause(session, waiter.job_id)
    job = job_of(database, waiter.job_id)
    assert (job.state, job.waiting_for, job.awaited_key) == ("paused", None, None)

    with database.write() as session:
        lifecycle.resume(session, waiter.job_id)
        jobs.request_cancel(session, waiter.job_id)
    assert job_of(database, waiter.job_id).state == "cancelled"
