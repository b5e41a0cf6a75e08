"""Children that are forked from a warm process are what they would be if each were started by itself, and end with it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services import processes
from services.scheduler.warm import Starter
from tests.servers.waiting import lives, until

_MODULE = "tests.services.scheduler.started"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is loaded ahead")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children find the tests' modules."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


@pytest.fixture
def cold() -> Starter:
    return Starter(_MODULE, "")


@pytest.fixture
def warm() -> Starter:
    starter = Starter(_MODULE, "")
    assert not starter.loading
    starter.keep_warm()
    assert starter.loading or starter.warm
    until(lambda: starter.warm)
    assert not starter.loading
    return starter


@pytest.fixture(params=["cold", "warm"])
def starter(request: pytest.FixtureRequest) -> Starter:
    """As a scheduler's is in its first seconds, and later."""
    found: Starter = request.getfixturevalue(request.param)
    assert found.warm == (request.param == "warm")
    return found


def test_a_child_has_a_session_a_log_and_a_name_of_its_own(starter: Starter, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    child = starter.start(_MODULE, ["stay", "--flag"], log=log)
    told = _told(log)
    title = Path(f"/proc/{child.pid}/cmdline").read_text().replace("\0", " ").strip()

    assert told["arguments"] == ["stay", "--flag"]
    assert told["session"] == told["group"] == child.pid
    assert title.endswith(f"-m {_MODULE} stay --flag")
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.05)
    assert processes.stop(child) == child.returncode == -signal.SIGTERM
    assert not Path(f"/proc/{child.pid}").exists()


@pytest.mark.parametrize(("how", "status"), [("0", 0), ("7", 7), ("signal", -signal.SIGKILL)])
def test_the_status_that_a_child_ends_with_is_told(starter: Starter, tmp_path: Path, how: str, status: int) -> None:
    assert starter.start(_MODULE, [how], log=tmp_path / "log").wait(30) == status


def test_a_child_that_fails_leaves_its_traceback_in_its_log(starter: Starter, tmp_path: Path) -> None:
    assert starter.start(_MODULE, ["no number"], log=tmp_path / "log").wait(30) == 1
    assert "ValueError: invalid literal" in (tmp_path / "log").read_text()


def test_a_log_goes_on_where_another_child_has_ended(starter: Starter, tmp_path: Path) -> None:
    for _ in range(2):
        starter.start(_MODULE, ["0"], log=tmp_path / "log").wait(30)
    first, second = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert first["draw"] != second["draw"]


def test_a_log_that_cannot_be_written_is_told_before_anything_starts(starter: Starter, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(OSError):
        starter.start(_MODULE, ["0"], log=tmp_path / "taken" / "log")


def test_children_end_with_the_warm_process_and_the_next_start_by_themselves_until_it_is_there_again(warm: Starter, tmp_path: Path) -> None:
    child = warm.start(_MODULE, ["stay"], log=tmp_path / "one")
    server = _told(tmp_path / "one")["parent"]
    assert server != os.getpid()

    os.kill(server, signal.SIGKILL)
    assert child.wait(30) != 0
    assert not warm.warm
    other = warm.start(_MODULE, ["stay"], log=tmp_path / "two")
    assert _told(tmp_path / "two")["parent"] == os.getpid()
    processes.stop(other)

    warm.keep_warm()
    until(lambda: warm.warm)
    assert warm.start(_MODULE, ["7"], log=tmp_path / "three").wait(30) == 7


def test_a_warm_process_that_hangs_is_ended_and_its_children_with_it(
    warm: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.scheduler.warm._ANSWER_SECONDS", 0.2)
    child = warm.start(_MODULE, ["stay"], log=tmp_path / "one")
    os.kill(_told(tmp_path / "one")["parent"], signal.SIGSTOP)

    with pytest.raises(OSError, match="does not answer"):
        warm.start(_MODULE, ["0"], log=tmp_path / "two")

    assert child.wait(30) == -signal.SIGKILL
    until(lambda: not Path(f"/proc/{child.pid}").exists())
    assert warm.start(_MODULE, ["7"], log=tmp_path / "three").wait(60) == 7


def test_a_warm_process_that_cannot_load_its_libraries_is_not_waited_for(tmp_path: Path) -> None:
    starter = Starter("no.such.module", "")
    starter.keep_warm()
    until(lambda: not starter.loading)
    starter.keep_warm()  # is not tried again at once
    assert not starter.loading and not starter.warm
    assert starter.start(_MODULE, ["7"], log=tmp_path / "log").wait(60) == 7


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has started two children from a warm process, and stays."""
    script = f"""
import sys, time
from pathlib import Path
from services.scheduler.warm import Starter
starter = Starter({_MODULE!r}, "")
starter.keep_warm()
while not starter.warm:
    time.sleep(0.05)
children = [starter.start({_MODULE!r}, ["stay"], log=Path(sys.argv[1]) / name) for name in ("one", "two")]
time.sleep(1000)
"""
    process = processes.start([sys.executable, "-c", script, str(tmp_path)], log=tmp_path / "log")
    yield process
    processes.stop(process)


def test_a_killed_scheduler_leaves_neither_its_children_nor_the_warm_process(scheduler: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    told = [_told(tmp_path / name) for name in ("one", "two")]
    family = {told[0]["parent"], *(tale["session"] for tale in told)}
    assert len(family) == 3

    scheduler.kill()
    scheduler.wait()

    until(lambda: not any(lives(pid) for pid in family))


def _told(log: Path) -> dict[str, Any]:
    """What a child has told of itself, once it has."""
    until(lambda: log.exists() and log.read_text().endswith("\n"))
    told: dict[str, Any] = json.loads(log.read_text().splitlines()[0])
    return told


def test_a_process_id_that_comes_round_again_is_another_childs(warm: Starter, tmp_path: Path) -> None:
    warm.start(_MODULE, ["7"], log=tmp_path / "one").wait(30)
    process: Any = warm._process
    process._ended |= dict.fromkeys(range(1 << 22), 7)  # as after as many children as there are ids

    child = warm.start(_MODULE, ["stay"], log=tmp_path / "two")

    assert child.poll() is None
    assert processes.stop(child) == -signal.SIGTERM
