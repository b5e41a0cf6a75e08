"""Waiting for what other processes do."""

import time
from collections.abc import Callable
from pathlib import Path


def until(condition: Callable[[], bool], patience_seconds: float = 60) -> None:
    """Return once a condition holds; the test fails if it does not in time."""
    deadline = time.monotonic() + patience_seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """Whether there is such a process, and it has not ended without anybody having looked."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
