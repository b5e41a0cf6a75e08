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
from services.store.blobs import BlobStore
from services.store.database import Database
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
    lease = stock.add_running(database)
    measured: list[int] = []

    def measure(*given: Any) -> Speed:
        measured.append(1)
        return Speed(Line(0.0, 0.01), Line(0.0, 0.001))

    monkeypatch.setattr(expecting, "measure_speed", measure)
    monkeypatch.setattr(expecting.resources, "pool_size", lambda asked, share: asked or 2)

    def run() -> Estimate:
        request = JobRequest.model_validate(stock.body(**ASKED))
        info = BackboneInfo.from_dict(stock.INFO | {"arguments": {}, "transform": TRANSFORM})
        context = RunContext(Settings(), database, blobs, lease, request, info, {"fingerprint": "f"}, tmp_path)
        context.__dict__ |= {"data": SimpleNamespace(splits={"test": range(1000)}), "also_tests": {}}
        local = SimpleNamespace(train=range(100), val=range(100), second=None)
        prepared: Any = SimpleNamespace(workload=None, weights_hash="w", local=local)
        found = Estimate(context, prepared)
        run.measured = len(measured)  # type: ignore[attr-defined]
        return found

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
