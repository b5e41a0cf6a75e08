"""What several running jobs need is made once: who waits says so, and takes over when the maker is gone."""

import threading
from typing import Any

import pytest

from services.cluster.pausing import Paused
from services.scheduler import turns
from services.scheduler.context import RunContext
from services.scheduler.turns import GaveWay, made_once
from services.settings import Settings
from services.store import claims, jobs, lifecycle, search_state
from services.store.database import Database
from services.store.retries import RetryRules
from tests.services.sharing.conftest import Runner
from tests.services.sharing.processes import make_in_turn
from tests.services.store.concurrency import PATIENCE_SECONDS, Background, in_processes
from tests.services.store.rows import add_running_job, add_supernet, events_of, expire, job_of, kinds_of

KEY = "k" * 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "POLL_SECONDS", 0.02)


class Trainer:
    """Trains one job's supernet, held up until it is let go."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.begun, self.go = threading.Event(), threading.Event()
        self.call = Background(lambda: made_once(context, KEY, self._find, self._make))

    def _find(self) -> str | None:
        with self._context.database.read() as session:
            row = search_state.supernet(session, KEY)
            return None if row is None else row.recipe.get("by", "somebody")

    def _make(self) -> str:
        self.begun.set()
        assert self.go.wait(PATIENCE_SECONDS)
        with self._context.fenced() as (session, job):
            add_supernet(session, KEY)
            claims.drop(session, self._context.lease, [KEY])
        return job.id


def until(true: Any) -> None:
    """Wait until something holds."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_SECONDS / 0.02)):
        if true():
            return
        pause.wait(0.02)
    pytest.fail("it did not come to pass")


def test_second_job_waits_says_so_and_finds_what_the_first_made(runner: Runner, database: Database) -> None:
    first, second = runner(), runner()
    maker = Trainer(first)
    maker.begun.wait(PATIENCE_SECONDS)

    waiter = Trainer(second)
    until(lambda: job_of(database, second.lease.job_id).waiting_for == first.lease.job_id)
    maker.go.set()

    assert maker.call.result() == (first.lease.job_id, False)
    assert waiter.call.result() == ("somebody", True)
    assert not waiter.begun.is_set()
    assert job_of(database, second.lease.job_id).waiting_for is None
    told = [event.data for event in events_of(database, second.lease.job_id) if event.kind == "supernet_awaited"]
    assert told == [{"supernet": KEY, "job": first.lease.job_id}]
    with database.read() as session:
        assert claims.holder(session, KEY) is None


@pytest.mark.parametrize("end", ["lease runs out", "cancelled", "paused", "requeued", "failed"])
def test_waiter_takes_over_when_the_maker_is_gone(end: str, runner: Runner, database: Database) -> None:
    first, second = runner(), runner()
    maker = Trainer(first)
    maker.begun.wait(PATIENCE_SECONDS)
    waiter = Trainer(second)
    until(lambda: job_of(database, second.lease.job_id).waiting_for)

    if end == "lease runs out":
        expire(database, first.lease.job_id)
    else:
        with jobs.fenced(database, first.lease) as (session, job):
            gone = {"cancelled": jobs.cancelled, "paused": jobs.paused, "requeued": jobs.release}
            jobs.fail(session, job, "diverged", "") if end == "failed" else gone[end](session, job)
    waiter.begun.wait(PATIENCE_SECONDS)
    waiter.go.set()

    assert waiter.call.result() == (second.lease.job_id, False)
    assert job_of(database, second.lease.job_id).waiting_for is None


def test_job_that_comes_back_waits_for_who_took_over(runner: Runner, database: Database) -> None:
    first, second = runner(), runner()
    maker = Trainer(first)
    maker.begun.wait(PATIENCE_SECONDS)
    expire(database, first.lease.job_id)
    taker = Trainer(second)
    taker.begun.wait(PATIENCE_SECONDS)

    with database.write() as session:
        lease = jobs.claim(session, "another", 3600, RetryRules())
    assert lease.job_id == first.lease.job_id
    first.lease = lease
    back = Trainer(first)
    until(lambda: job_of(database, lease.job_id).waiting_for == second.lease.job_id)
    taker.go.set()

    assert back.call.result() == ("somebody", True)


def test_job_that_has_waited_for_long_goes_back_into_the_queue(runner: Runner, database: Database) -> None:
    first, second = runner(), runner()
    second.settings = Settings(await_seconds=0.1)
    maker = Trainer(first)
    maker.begun.wait(PATIENCE_SECONDS)
    waiter = Trainer(second)

    with pytest.raises(GaveWay):
        waiter.call.result()
    job = job_of(database, second.lease.job_id)
    assert (job.state, job.attempts, job.waiting_for, job.awaited_key) == ("queued", 0, first.lease.job_id, KEY)
    assert kinds_of(database, second.lease.job_id)[-2:] == ["supernet_awaited", "requeued"]

    with database.write() as session:
        assert jobs.claim(session, "another", 3600, RetryRules()) is None
    maker.go.set()
    maker.call.result()
    with database.write() as session:
        lease = jobs.claim(session, "another", 3600, RetryRules())
    assert lease is not None
    second.lease = lease
    assert Trainer(second).call.result() == ("somebody", True)


def test_job_that_went_back_is_the_one_to_take_over(runner: Runner, database: Database) -> None:
    first, second, third = runner(), runner(), runner()
    second.settings = third.settings = Settings(await_seconds=0.1)
    maker = Trainer(first)
    maker.begun.wait(PATIENCE_SECONDS)
    for waiter in (Trainer(second), Trainer(third)):
        with pytest.raises(GaveWay):
            waiter.call.result()
    with jobs.fenced(database, first.lease) as (session, job):
        jobs.cancelled(session, job)

    with database.write() as session:
        lease, none = (jobs.claim(session, "another", 3600, RetryRules()) for _ in range(2))
    assert (lease.job_id, none) == (second.lease.job_id, None)
    second.lease = lease
    taker = Trainer(second)
    taker.begun.wait(PATIENCE_SECONDS)
    taker.go.set()

    assert taker.call.result() == (lease.job_id, False)


def test_job_that_is_asked_to_pause_pauses_and_does_not_go_back(runner: Runner, database: Database) -> None:
    first, second = runner(), runner()
    Trainer(first).begun.wait(PATIENCE_SECONDS)
    waiter = Trainer(second)
    until(lambda: job_of(database, second.lease.job_id).waiting_for)
    with database.write() as session:
        lifecycle.request_pause(session, second.lease.job_id)
    second.settings = Settings(await_seconds=0)
    waiter.call.give_way()
    assert job_of(database, second.lease.job_id).state == "running"

    second.pausing.set()

    with pytest.raises(Paused):
        waiter.call.result()


def test_waiting_job_can_be_paused(runner: Runner, database: Database) -> None:
    first, second = runner(), runner()
    Trainer(first).begun.wait(PATIENCE_SECONDS)
    waiter = Trainer(second)
    until(lambda: job_of(database, second.lease.job_id).waiting_for)

    with database.write() as session:
        lifecycle.request_pause(session, second.lease.job_id)
    second.pausing.set()

    with pytest.raises(Paused):
        waiter.call.result()


def test_runner_that_lost_its_job_claims_nothing(runner: Runner, database: Database) -> None:
    context = runner()
    expire(database, context.lease.job_id)
    with database.write() as session:
        jobs.claim(session, "another", 3600, RetryRules())

    with pytest.raises(jobs.LeaseLost):
        Trainer(context).call.result()

    with database.read() as session:
        assert claims.holder(session, KEY) is None


def test_of_several_processes_one_makes_it(database: Database) -> None:
    leases = [add_running_job(database, f"runner {number}") for number in range(3)]

    failures = in_processes(3, make_in_turn, database.url, leases, KEY)

    assert failures == []
    kinds = [kind for lease in leases for kind in kinds_of(database, lease.job_id)]
    assert (kinds.count("made"), kinds.count("found")) == (1, 2)
