"""Starting child processes that never outlive their parent, whatever kills it (Linux; elsewhere an ordinary start)."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

_PR_SET_PDEATHSIG = 1


class Child(Protocol):
    """A child process, by the names of `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def returncode(self) -> int | None:
        """Its exit status, minus the signal that ended it; None while it runs."""

    def poll(self) -> int | None:
        """The same."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status once it has ended. Raises subprocess.TimeoutExpired."""


def start(
    command: Sequence[str], *, log: Path | None = None, env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own; its output is appended to `log`, or shared with this process."""
    output = None
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("ab")
    try:
        return subprocess.Popen(
            list(command),
            stdin=stdin,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    finally:
        if output is not None:
            output.close()


def stop(process: Child, patience_seconds: float = 10.0) -> int:
    """Ask a process to end, kill its group if it does not in time; returns its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def die_with_parent() -> None:
    """Have this process killed when the thread that has started it ends (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def become(body: Callable[[], Any]) -> NoReturn:
    """In a fork: be a process with a session and random numbers of its own, which ends with its parent, or as `sys.exit(body())` would."""
    status: Any = 1
    try:
        os.setsid()
        die_with_parent()
        random.seed()
        status = body()
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))
