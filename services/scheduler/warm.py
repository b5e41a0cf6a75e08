"""Starts runners, drivers and describers: forked from a process that has loaded their libraries, so at work in a moment.

Loading torch, timm and Ray takes seconds of a core each time; the warm process of a scheduler has done it once. Where there is none,
children load the libraries by themselves. A fork server of `multiprocessing` would leave folders in `/tmp` when its owner is killed.
"""

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from services import processes
from services.processes import Child
from services.scheduler.warm_process import MAX_MESSAGE_BYTES

log = logging.getLogger("glora.scheduler")

_PATIENCE_SECONDS = 120.0
"""So long are children not started while the libraries are being loaded."""
_RETRY_SECONDS = 60.0
"""After so long another warm process is started where one was lost before it was warm."""
_ANSWER_SECONDS = 30.0
_KILLED = -signal.SIGKILL


class Starter:
    """Starts child processes that run a module's `main`, which returns the exit status.

    Args:
        preloaded: the module that loads their libraries.
        workers: that which loads as much of these as workers of Ray need, which are then forked as well; none are if it is empty.
    """

    def __init__(self, preloaded: str = "services.scheduler.preloaded", workers: str = "services.cluster.preloaded") -> None:
        self._preloaded, self._workers = preloaded, workers
        self._process: _WarmProcess | None = None

    @property
    def warm(self) -> bool:
        """Whether children are forked."""
        return self._process is not None and self._process.warm

    @property
    def loading(self) -> bool:
        """Whether the libraries are being loaded. Who can wait should: a child that starts meanwhile loads them a second time."""
        process = self._process
        return process is not None and not (process.warm or process.lost) and process.age < _PATIENCE_SECONDS

    def keep_warm(self) -> None:
        """Start a warm process if there is none (Linux; elsewhere nothing). It ends with the thread that calls this."""
        process = self._process
        if sys.platform == "linux" and (process is None or (process.lost and (process.was_warm or process.age > _RETRY_SECONDS))):
            self._process = _WarmProcess(self._preloaded, self._workers)

    def start(self, module: str, arguments: Sequence[str], *, log: Path) -> Child:
        """Start `python -m module arguments`, or its like; what it prints is appended to `log`. Raises OSError."""
        if self._process is None or not self._process.warm:
            return processes.start([sys.executable, "-m", module, *arguments], log=log)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("ab").close()
        return self._process.fork(module, arguments, log)


class _WarmProcess:
    """The warm process, from its scheduler's side."""

    def __init__(self, preloaded: str, workers: str) -> None:
        self._begun = time.monotonic()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "services.scheduler.warm_process", preloaded, workers]
            self._process = processes.start(command, stdin=theirs.fileno())
        self._started: int | None = None
        self._ended: dict[int, int] = {}
        self.was_warm, self._lost = False, False

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._begun

    @property
    def warm(self) -> bool:
        """Whether it can fork."""
        self.listen()
        return self.was_warm and not self._lost

    @property
    def lost(self) -> bool:
        """Whether it has ended, and its children with it."""
        self.listen()
        return self._lost

    def fork(self, module: str, arguments: Sequence[str], log: Path) -> Child:
        """A new child. Raises OSError."""
        self._started = None
        self._socket.send(json.dumps({"module": module, "arguments": list(arguments), "log": str(log)}).encode())
        deadline = time.monotonic() + _ANSWER_SECONDS
        while self._started is None and not self._lost and time.monotonic() < deadline:
            self.listen(deadline - time.monotonic())
        if self._started is None:
            self._process.kill()
            raise OSError("the process that runners are forked from does not answer")
        return _Forked(self, self._started)

    def status_of(self, pid: int) -> int | None:
        """The exit status of a child; None while it runs."""
        self.listen()
        return self._ended.get(pid, _KILLED if self._lost else None)

    def listen(self, seconds: float = 0.0) -> None:
        """Take in all answers that are there; if there is none, wait for one so long."""
        while not self._lost and select.select([self._socket], [], [], max(0.0, seconds))[0]:
            seconds = 0.0
            try:
                message = self._socket.recv(MAX_MESSAGE_BYTES)
            except ConnectionError:
                message = b""
            self._take(json.loads(message) if message else {"lost": True})

    def _take(self, answer: dict[str, int]) -> None:
        if "started" in answer:
            self._started = answer["started"]
            self._ended.pop(self._started, None)  # process ids come round again
        elif "ended" in answer:
            self._ended[answer["ended"]] = answer["status"]
        elif "warm" in answer:
            self.was_warm = True
            log.info("runners start in a moment from now on, after %.0f s", self.age)
        else:
            self._lost = True
            log.warning("the process that runners are forked from has ended with status %s", processes.stop(self._process, 1))
            self._socket.close()


class _Forked:
    """A child of a warm process."""

    def __init__(self, parent: _WarmProcess, pid: int) -> None:
        self._parent, self.pid = parent, pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self._parent.status_of(self.pid)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (status := self.poll()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self._parent.listen(min(left, 1.0))
        return status

    def _send(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
