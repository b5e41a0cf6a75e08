"""Processes that fall silent: each is killed, wherever Ray would have waited for it for ever, and what it did is done again."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from services.cluster import pulse
from tests.servers.driving import local_ray

pytestmark = pytest.mark.slow

SILENT_SECONDS = 6.0


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ray on this machine."""
    with local_ray(__name__, cpus=2):
        yield


def _stops_once(notes: Path) -> int:
    """Beats; the first process that is asked stops itself at its work."""
    pulse.beat()
    first = not notes.exists()
    with notes.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if first:
        os.kill(os.getpid(), signal.SIGSTOP)
    return os.getpid()


@pulse.at_work
def _computes(seconds: float) -> int:
    """Computes without a pause for so long."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        count += 1
    return os.getpid()


class _Actor:
    """Stops as it starts, once."""

    def __init__(self, notes: Path) -> None:
        _stops_once(notes)

    def pid(self) -> int:
        return os.getpid()


@pytest.mark.parametrize("place", ["the watch's own node", "another node"])
def test_stopped_task_is_killed_and_done_again(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "notes"
    with pulse.watched(SILENT_SECONDS):
        if place == "another node":
            monkeypatch.setattr(pulse, "_own_node", lambda: "")
        last = ray.get(ray.remote(max_retries=1)(_stops_once).remote(notes), timeout=90)
    first, second = map(int, notes.read_text().split())
    assert second == last != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_actor_that_hangs_as_it_starts_is_killed(tmp_path: Path) -> None:
    with pulse.watched(SILENT_SECONDS):
        actor = ray.remote(_Actor).remote(tmp_path / "notes")
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(actor.pid.remote(), timeout=90)


def test_process_is_killed_though_the_one_that_counts_was_stopped_as_well(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with pulse.watched(SILENT_SECONDS):
        counting = ray.get(ray.get_actor("pulse").__ray_call__.remote(lambda _: os.getpid()))
        last = ray.remote(max_retries=1)(_stops_once).remote(notes)
        deadline = time.monotonic() + 60
        while not notes.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(SILENT_SECONDS / 3)  # seen by then
        os.kill(counting, signal.SIGSTOP)
        assert ray.get(last, timeout=120) > 0
    with pytest.raises(ProcessLookupError):
        os.kill(counting, 0)


def test_process_at_work_is_left_alone_and_told_of_as_long_as_it_works() -> None:
    looks: list[bool] = []
    with pulse.watched(SILENT_SECONDS, looks.append):
        assert ray.get(ray.remote(max_retries=0)(_computes).remote(2.5 * SILENT_SECONDS), timeout=90) > 0
        deadline = time.monotonic() + 60
        while looks[-1] and time.monotonic() < deadline:
            time.sleep(0.1)
    assert not looks[-1]
    assert sum(looks) >= 8, "at most of the fifteen looks, one a second, for as long as it computed"


def test_nobody_watches(tmp_path: Path) -> None:
    assert ray.get(ray.remote(max_retries=0)(_computes).remote(0.1), timeout=90) > 0


def test_a_later_process_of_the_same_id_is_not_killed() -> None:
    pulse._kill([pulse.Member("node", os.getpid(), "another time")])
    assert pulse._began(os.getpid())
