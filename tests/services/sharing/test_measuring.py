"""No candidate is measured twice: not by two jobs at once, not after a runner died, not after a pause."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import select

from glora_core.configs import config_hash, encode
from glora_core.evaluation import Score
from services.cluster.pausing import Paused
from services.scheduler import evaluating
from services.scheduler.context import RunContext
from services.scheduler.evaluating import Measuring
from services.store import jobs
from services.store.database import Database
from services.store.models import Claim, Evaluation
from services.store.retries import RetryRules
from tests.services.api.stock import SPACE
from tests.services.sharing.conftest import Runner
from tests.services.store.concurrency import PATIENCE_SECONDS, Background
from tests.services.store.rows import add_supernet, expire

CONFIGS = {config_hash(c): c for c in ((SPACE.layer_configs[0][i], SPACE.layer_configs[1][i]) for i in range(6))}
CODES = {digest: encode(config) for digest, config in CONFIGS.items()}


class Killed(Exception):
    """The runner ends here."""


class Pool:
    """Gives every config the same score, one batch each; can hold on, or be killed, before a batch."""

    def __init__(self, before: Callable[[int], Any] = lambda number: None) -> None:
        self.scored: list[str] = []
        self.closed = False
        self._before = before

    def batches(self, codes: Sequence[str], pausing: Callable[[], bool], split: str) -> Iterator[tuple[range, list[Score]]]:
        for place, code in enumerate(codes):
            self._before(len(self.scored))
            if pausing():
                return
            self.closed = False
            self.scored.append(code)
            yield range(place, place + 1), [Score(0.5, 1.0, 4, 0.5, 0.5)]

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    monkeypatch.setattr(evaluating, "_POLL_SECONDS", 0.02)
    with database.write() as session:
        add_supernet(session)


def measure(context: RunContext, pool: Any, hashes: Sequence[str] = tuple(CONFIGS), generation: int = 0) -> None:
    """What a runner does for a generation: measure what is missing, and store the rest with it."""
    measuring = Measuring(context, "supernet", pool)
    fresh = measuring.missing({digest: CONFIGS[digest] for digest in hashes}, generation)
    with context.fenced() as (session, _):
        measuring.store(session, fresh)


def claimed(database: Database) -> Sequence[Claim]:
    with database.read() as session:
        return session.scalars(select(Claim)).all()


def stored(database: Database) -> dict[str, str | None]:
    """Stored evaluations, and for which job they were measured; no claim may be left."""
    with database.read() as session:
        assert session.scalars(select(Claim)).all() == []
        return {row.config_hash: row.job_id for row in session.scalars(select(Evaluation))}


def test_two_jobs_at_once_measure_each_candidate_once_between_them(runner: Runner, database: Database) -> None:
    first, second = runner(), runner()
    digests = list(CONFIGS)
    half = threading.Event()
    slow = Pool(lambda number: half.wait(PATIENCE_SECONDS) if number == 2 else None)
    begun = Background(lambda: measure(first, slow, digests[:4]))
    begun.until(lambda: len(slow.scored) == 2)
    quick = Pool()
    other = Background(lambda: measure(second, quick, digests[2:]))
    other.until(lambda: len(quick.scored) == 2)
    half.set()
    begun.result()
    other.result()

    assert sorted(slow.scored + quick.scored) == sorted(CODES.values())
    jobs_of = [first.lease.job_id] * 4 + [second.lease.job_id] * 2
    assert stored(database) == dict(zip(digests, jobs_of, strict=True))


def test_job_that_waits_for_long_gives_its_evaluators_back_and_goes_on_with_others(
    runner: Runner, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "_IDLE_SECONDS", 0.1)
    first, second = runner(), runner()
    given_back, waiting = threading.Event(), Pool()
    begun = Background(lambda: measure(first, Pool(lambda number: given_back.wait(PATIENCE_SECONDS)), list(CONFIGS)[:4]))
    begun.until(lambda: len(claimed(database)) == 4)
    other = Background(lambda: measure(second, waiting))
    other.until(lambda: waiting.closed)
    assert len(waiting.scored) == 2
    given_back.set()
    begun.result()
    other.result()

    assert len(stored(database)) == 6


def test_job_takes_over_what_a_dead_runner_was_measuring(runner: Runner, database: Database) -> None:
    first, second = runner(), runner()

    def killed(number: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        measure(first, Pool(killed))
    pool = Pool()
    waiting = Background(lambda: measure(second, pool))
    waiting.give_way()
    assert pool.scored == []
    expire(database, first.lease.job_id)
    waiting.result()

    assert len(pool.scored) == 6
    assert set(stored(database).values()) == {second.lease.job_id}


@pytest.mark.parametrize("store_seconds", [0.0, 60.0])
def test_killed_runner_loses_only_what_came_since_it_last_stored(
    store_seconds: float, runner: Runner, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "_STORE_SECONDS", store_seconds)
    context = runner()

    def killed_later(number: int) -> None:
        if number == 4:
            raise Killed

    with pytest.raises(Killed):
        measure(context, Pool(killed_later))
    expire(database, context.lease.job_id)
    with database.write() as session:
        context.lease = jobs.claim(session, "another", 3600, RetryRules())
    again = Pool()
    measure(context, again)

    assert len(again.scored) == (2 if store_seconds == 0 else 6)
    assert len(stored(database)) == 6


def test_pause_stores_what_was_in_hand(runner: Runner, database: Database) -> None:
    context = runner()

    with pytest.raises(Paused):
        measure(context, Pool(lambda number: context.pausing.set() if number == 3 else None))
    context.pausing.clear()
    again = Pool()
    measure(context, again)

    assert len(again.scored) == 3
    assert len(stored(database)) == 6


def test_what_is_stored_is_not_even_claimed(runner: Runner, database: Database) -> None:
    first, second = runner(), runner()
    measure(first, Pool())
    pool = Pool()
    measure(second, pool, generation=1)

    assert pool.scored == []
    with database.read() as session:
        assert {row.generation for row in session.scalars(select(Evaluation))} == {0}
