"""Ray's workers that are forked are what they would be if each were started by itself, and end with what they are forked from."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from services import processes
from services.cluster import forked_worker
from services.cluster.worker_forks import worker_command
from tests.servers.waiting import lives, until
from tests.services.cluster import forking

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no worker is forked")

ROOT = str(Path(__file__).parents[3])


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The command, the process that forks, and its child."""
    tell = tmp_path / "tell"
    script = f"from pathlib import Path; from tests.services.cluster.forking import forks; forks(Path({str(tell)!r}))"
    process = processes.start([sys.executable, "-c", script], env={"PYTHONPATH": ROOT}, log=tmp_path / "forks.log")
    until(lambda: tell.exists() and tell.read_text().endswith("}"))
    told: dict[str, Any] = json.loads(tell.read_text())
    assert told["forks"] == process.pid
    yield told
    processes.stop(process)


def test_without_a_process_that_forks_ray_starts_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLORA_WORKERS_FROM", raising=False)
    assert worker_command() is None


def test_a_worker_takes_on_what_it_was_given_and_nothing_else(forks: dict[str, Any], tmp_path: Path) -> None:
    told = json.loads(_ask(forks["command"], "a b", "$HOME", folder=tmp_path).stdout)

    assert told["arguments"] == ["a b", "$HOME"]
    assert told["environment"] == {"HERE": "täglich", "ONLY_HERE": None}
    assert (told["folder"], told["read"], told["main"]) == (str(tmp_path), "given", "__main__")
    assert told["handles"] == 3, "what the process it is forked from has open is not its own"
    assert told["waits"], "it can wait for children"
    assert (told["parent"], told["session"], told["loaded"]) == (forks["forks"], told["process"], True)


def test_a_worker_that_is_the_first_to_go_without_memory_stays_so(forks: dict[str, Any], tmp_path: Path) -> None:
    line = f"echo 900 > /proc/self/oom_score_adj; {_line(forks)}"
    asked = subprocess.run(["bash", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert json.loads(asked.stdout)["out_of_memory_first"] == "900"


def test_a_worker_that_fails_says_so_on_its_own_streams(forks: dict[str, Any], tmp_path: Path) -> None:
    asked = _ask(forks["command"], "fail", folder=tmp_path)
    assert asked.returncode == 0, "who has asked is done; the raylet goes by the worker's connection"
    assert "ValueError: it fails" in asked.stderr


@pytest.mark.parametrize("who", ["forks", "child"])
def test_workers_end_with_what_they_are_forked_from_and_the_next_start_by_themselves(
    who: str, forks: dict[str, Any], tmp_path: Path
) -> None:
    with subprocess.Popen(["bash", "-c", _line(forks, "stay")], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as asking:
        assert asking.stdout is not None
        worker = json.loads(asking.stdout.readline())["process"]
        assert lives(worker)

        os.kill(forks[who], signal.SIGKILL)

        until(lambda: not any(lives(pid) for pid in (worker, forks["forks"], forks["child"])))
    told = json.loads(_ask(forks["command"], "a b", folder=tmp_path).stdout)
    assert (told["arguments"], told["read"], told["loaded"]) == (["a b"], "given", False)
    assert told["parent"] == os.getpid()


@pytest.mark.parametrize("message", [b"", b"no json", b'{"arguments": []}', b"[]"], ids=["nothing", "no json", "too little", "a list"])
def test_what_is_not_understood_forks_nothing_and_holds_nobody_up(message: bytes, forks: dict[str, Any], tmp_path: Path) -> None:
    address = shlex.split(forks["command"])[-1]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as strange:
        strange.connect(f"\0{address}")
        if message:
            strange.send(message)
    assert json.loads(_ask(forks["command"], "1", folder=tmp_path).stdout)["parent"] == forks["forks"]


def test_who_has_waited_in_vain_and_started_a_worker_by_himself_gets_no_second_one(forks: dict[str, Any], tmp_path: Path) -> None:
    os.kill(forks["forks"], signal.SIGSTOP)
    patient = Path(forked_worker.__file__).read_text().replace("_PATIENCE_SECONDS = 60.0", "_PATIENCE_SECONDS = 0.2")
    (tmp_path / "impatient.py").write_text(patient)
    command = forks["command"].replace(str(forked_worker.__file__), str(tmp_path / "impatient.py"))
    told = tmp_path / "told"
    with told.open("w") as streams:
        line = _line({"command": command})
        subprocess.run(["bash", "-c", line], stdin=subprocess.DEVNULL, stdout=streams, timeout=60, check=True)

    os.kill(forks["forks"], signal.SIGCONT)

    assert json.loads(_ask(forks["command"], "1", folder=tmp_path).stdout)["loaded"], "it has come to those that asked since"
    assert [json.loads(line)["loaded"] for line in told.read_text().splitlines()] == [False]


def test_ray_works_with_forked_workers(forks: dict[str, Any]) -> None:
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=100_000_000,
        runtime_env={"py_executable": forks["command"]},
    )
    try:

        @ray.remote
        class Counter:
            def __init__(self) -> None:
                self.count = 0

            def add(self, number: int) -> tuple[int, int, int, bool]:
                self.count += number
                return self.count, os.getpid(), os.getppid(), "fractions" in sys.modules

        counter = Counter.options(max_restarts=1, max_task_retries=1).remote()
        first = ray.get(counter.add.remote(3))
        os.kill(first[1], signal.SIGKILL)
        second = ray.get(counter.add.remote(4))
        ray.kill(counter)
        until(lambda: not lives(second[1]))
    finally:
        ray.shutdown()

    assert first[1] != second[1]
    assert (first[0], *first[2:]) == (3, forks["forks"], True)
    assert (second[0], *second[2:]) == (4, forks["forks"], True)


def _line(forks: dict[str, Any], *arguments: str) -> str:
    """What Ray has a shell run for a worker."""
    return f"exec {forks['command']} {shlex.join([str(forking.__file__), *(arguments or ['1'])])}"


def _ask(command: str, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Ask for a worker, and wait until it has closed its streams."""
    line = _line({"command": command}, *arguments)
    given = {**os.environ, "HERE": "täglich"}
    return subprocess.run(["bash", "-c", line], input="given", capture_output=True, text=True, cwd=folder, env=given, timeout=60)
