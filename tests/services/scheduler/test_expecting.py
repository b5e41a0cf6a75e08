"""The expected time of a job: measured once, told before training, corrected by what a phase took, and taken up by a later attempt."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glora_core.backbones import BackboneInfo
from glora_core.expected import START, Line, Speed
from services.job_request import JobRequest
from services.scheduler import expecting
from services.scheduler.context import RunContext
from services.scheduler.expecting import Estimate
from services.settings import Settings
from services.store import jobs
from services.store.blobs import BlobStore
from services.store.database import Database
from services.store.retries import RetryRules
from tests.services.api import stock
from tests.services.scheduler.test_finals import TRANSFORM, told

ASKED: dict[str, Any] = {
    "training": {"epochs": 100},
    "search": {"population": 4, "generations": 5},
    "finals": {"mode": "winner", "learning_rates": [0.001, 0.003], "epochs": [40]},
}


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(expecting, "time", found)
    return found


@pytest.fixture
def start(database: Database, blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Estimate]:
    """Starts an attempt at one job and counts how often a speed is measured."""
    leases = [stock.add_running(database)]
    measured: list[int] = []

    def measure(*given: Any) -> Speed:
        measured.append(1)
        return Speed(Line(0.0, 0.01), Line(0.0, 0.001))

    monkeypatch.setattr(expecting, "measure_speed", measure)
    monkeypatch.setattr(expecting.resources, "pool_size", lambda asked, share: asked or 2)

    def run(**asked: Any) -> Estimate:
        request = JobRequest.model_validate(stock.body(**ASKED | asked))
        info = BackboneInfo.from_dict(stock.INFO | {"arguments": {}, "transform": TRANSFORM})
        context = RunContext(Settings(), database, blobs, leases[-1], request, info, {"fingerprint": "f"}, tmp_path)
        context.__dict__ |= {"data": SimpleNamespace(splits={"test": range(1000)}), "also_tests": {}}
        local = SimpleNamespace(train=range(100), val=range(100), second=None)
        prepared: Any = SimpleNamespace(workload=None, weights_hash="w", local=local)
        found = Estimate(context, prepared)
        run.measured = len(measured)  # type: ignore[attr-defined]
        return found

    def interrupt() -> None:
        with jobs.fenced(database, leases[-1]) as (session, job):
            jobs.release(session, job)
        with database.write() as session:
            again = jobs.claim(session, "another", 60, RetryRules())
        assert again is not None
        leases.append(again)

    run.interrupt = interrupt  # type: ignore[attr-defined]
    return run


def test_it_is_told_before_anything_trains(start: Any, database: Database) -> None:
    start()

    (first,) = told(database, "estimate")
    assert first["phases"]["supernet"] == pytest.approx(START + 40 * 0.1 + 100 * 100 * 0.01)
    assert first["over"] == []
    assert first["seconds"] == first["left_seconds"] == pytest.approx(sum(first["phases"].values()))
    assert first["text"].startswith("about 3 min (supernet 2, finals 1")


def test_what_a_training_took_says_how_long_the_rest_will_take(start: Any, database: Database, clock: Clock) -> None:
    estimate = start()

    with estimate.phase("supernet"):
        clock.now += START + 3 * (4 + 100)

    before, after = told(database, "estimate")
    assert after["phases"]["supernet"] == pytest.approx(START + 312)
    assert after["phases"]["finals"] == pytest.approx(3 * before["phases"]["finals"], rel=0.01)
    assert after["phases"]["export"] == before["phases"]["export"]
    assert after["left_seconds"] == pytest.approx(after["seconds"] - after["phases"]["supernet"], abs=0.2)


def test_a_phase_that_fails_is_not_over(start: Any, database: Database) -> None:
    estimate = start()
    with pytest.raises(ValueError, match="no"), estimate.phase("supernet"):
        raise ValueError("no")
    assert len(told(database, "estimate")) == 1


def test_a_second_attempt_measures_nothing_and_keeps_what_phases_took(start: Any, database: Database, clock: Clock) -> None:
    with start().phase("supernet"):
        clock.now += 400

    start()

    assert start.measured == 1
    assert told(database, "estimate")[-1]["phases"]["supernet"] == 400


def test_a_resumed_job_has_only_the_rest_left_and_tells_no_phase_twice(start: Any, database: Database, clock: Clock) -> None:
    with start().phase("supernet"):
        clock.now += 400
    start.interrupt()

    resumed = start()
    with resumed.phase("supernet"):
        clock.now += 1
    with resumed.phase("search"):  # was interrupted: what it took in this attempt is not what it took
        clock.now += 2
    with resumed.phase("finals"):
        clock.now += 777

    first, *later = [(found["over"], found["phases"]) for found in told(database, "estimate")][1:]
    assert [over for over, _ in (first, *later)] == [
        ["supernet"],
        ["supernet"],
        ["supernet", "search"],
        ["supernet", "search", "finals"],
    ]
    last = later[-1][1]
    assert (last["supernet"], last["search"], last["finals"]) == (400, first[1]["search"], 777)


@pytest.mark.parametrize(("mode", "known"), [("thorough", 4), ("off", 3)])
def test_trained_baselines_are_expected_to_take_as_long_as_they_are_trained(
    mode: str, known: int, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[Any] = []
    monkeypatch.setattr(expecting, "expected", lambda work, speed: works.append(work) or {"supernet": 1, "search": 1, "finals": 1})
    finals = {"mode": mode, "learning_rates": [0.001, 0.003], "scratch_epochs": [5, 15]}

    start(finals=finals, baselines="trained")

    (work,) = works
    assert (work.known, work.finals.scratch_epochs) == (known, (20,))
