"""Starts runners, drivers and describers: forked from a process that has loaded their libraries, so at work in a moment.

Loading torch, timm and Ray takes seconds of a core each time; that process, the warm one, has done it once. It is the fork server of
`multiprocessing`: it runs no code but that, and holds no connection. Where it cannot be, children load the libraries by themselves.
"""

import importlib
import logging
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from services import processes
from services.processes import Child

log = logging.getLogger("glora.scheduler")

_SERVER_LOST = 255
"""The exit status that `multiprocessing` tells where its fork server has ended before the child, which ends with it."""
_PATIENCE_SECONDS = 120.0
"""So long are children not started while the libraries are being loaded."""
_RETRY_SECONDS = 60.0
"""After so long is it tried again where it has failed."""


class Starter:
    """Starts child processes that run a module's `main`, which returns the exit status.

    Args:
        preloaded: the module that loads the libraries, and has the warm process end with the one that started it.
    """

    def __init__(self, preloaded: str = "services.scheduler.preloaded") -> None:
        self._preloaded = preloaded
        self._context = multiprocessing.get_context("forkserver")
        self._warm = threading.Event()
        self._warming: threading.Thread | None = None
        self._begun = 0.0

    @property
    def warm(self) -> bool:
        """Whether children are forked from now on."""
        return self._warm.is_set()

    @property
    def loading(self) -> bool:
        """Whether the libraries are being loaded. Who can wait should: a child that starts meanwhile loads them a second time."""
        return not self.warm and self._warming is not None and self._warming.is_alive() and self._since < _PATIENCE_SECONDS

    def keep_warm(self) -> None:
        """See that the warm process runs: begin to load its libraries if it does not. It ends with the thread that calls this."""
        if self.warm or (self._warming is not None and (self._warming.is_alive() or self._since < _RETRY_SECONDS)):
            return
        self._begun = time.monotonic()
        self._context.set_forkserver_preload([self._preloaded] if sys.platform == "linux" else [])
        forkserver.ensure_running()
        self._warming = threading.Thread(target=self._await, daemon=True)
        self._warming.start()

    def start(self, module: str, arguments: Sequence[str], *, log: Path) -> Child:
        """Start `python -m module arguments`, or its like; what it prints is appended to `log`. Raises OSError."""
        if not self.warm:
            return processes.start([sys.executable, "-m", module, *arguments], log=log)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("ab").close()
        try:
            return _Forked(self._fork(_become, module, list(arguments), str(log)), self._warm)
        except EOFError as error:
            self._warm.clear()
            raise OSError("the process that runners are forked from has ended") from error

    @property
    def _since(self) -> float:
        """Seconds since the libraries began to be loaded."""
        return time.monotonic() - self._begun

    def _fork(self, target: object, *arguments: object) -> ForkServerProcess:
        process = self._context.Process(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        process.start()
        return process

    def _await(self) -> None:
        """A first child starts once the libraries are loaded."""
        try:
            first = self._fork(_nothing)
            first.join()
            status: object = first.exitcode
        except (EOFError, OSError) as error:
            status = error
        if status == 0:
            log.info("runners start in a moment from now on, after %.0f s", self._since)
            self._warm.set()
        else:
            log.warning("no process to fork runners from (%r); each loads its libraries by itself", status)


class _Forked:
    """A child of the warm process, by the names of `subprocess.Popen`."""

    def __init__(self, process: ForkServerProcess, warm: threading.Event) -> None:
        assert process.pid is not None
        self.pid: int = process.pid
        self._process, self._warm = process, warm

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        status = self._process.exitcode
        if status == _SERVER_LOST:
            self._warm.clear()
        return status

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return status


def _nothing() -> None:
    """What the first child does."""


def _become(module: str, arguments: list[str], log: str) -> None:
    """Be what `python -m module arguments` would be: a session of its own, its name, its output, its random numbers."""
    from setproctitle import setproctitle

    os.setsid()
    processes.die_with_parent()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    setproctitle(" ".join(["python", "-m", module, *arguments]))
    random.seed()
    sys.argv = [module, *arguments]
    status = importlib.import_module(module).main()
    sys.stdout.flush()
    os._exit(status)
