"""What the embedded service starts again when one of its processes has ended."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services import embedded, processes
from services.embedded import Embedded

_SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Embedded, list["subprocess.Popen[bytes]"]]]:
    """A service whose processes do nothing, and all that it has started so far."""
    started: list[subprocess.Popen[bytes]] = []
    really = processes.start

    def start(command: list[str], **how: object) -> "subprocess.Popen[bytes]":
        started.append(really(_SLEEP))
        return started[-1]

    monkeypatch.setattr(embedded.processes, "start", start)
    monkeypatch.setattr(embedded, "_RESTART_SECONDS", 0.0)
    found = Embedded(tmp_path, "127.0.0.1", 0)
    found._ray_port, found._ray_token = 1, "token"
    (tmp_path / "token").write_text("token")
    for name, command in found._commands("ray").items():
        found._start(name, command)
    yield found, started
    for process in started:
        processes.stop(process)


@pytest.mark.parametrize(("ended", "again"), [("api", {"api"}), ("scheduler", {"scheduler"}), ("ray", {"ray", "scheduler"})])
def test_each_that_ended_is_started_once_and_ray_takes_its_scheduler_along(
    ended: str, again: set[str], service: tuple[Embedded, list["subprocess.Popen[bytes]"]]
) -> None:
    running, started = service
    before, port = dict(running.children), running._ray_port
    processes.stop(before[ended])

    running._restart_ended("ray")

    assert {name for name, process in running.children.items() if process is not before[name]} == again
    assert len(started) == 3 + len(again)
    assert [process for process in started if process.poll() is None] == [p for p in started if p in running.children.values()]
    assert (running._ray_port != port) == (ended == "ray")
    assert len(running.restarts) == 1


def test_a_token_of_the_environment_is_the_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = embedded._token(tmp_path)
    monkeypatch.setenv("GLORA_TOKEN", "mine")

    assert embedded._token(tmp_path) == "mine" != own
