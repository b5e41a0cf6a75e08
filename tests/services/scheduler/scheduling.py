"""A scheduler process whose runners do nothing, for tests of the scheduler alone; loads neither torch nor ray.

Run as `python -m tests.services.scheduler.scheduling DATABASE_URL HOME LEASE_SECONDS START_SECONDS`.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services import processes
from services.scheduler import __main__ as scheduler
from services.settings import Settings


def idle(command: Sequence[str], *, log: Path | None = None, env: Any = None) -> "subprocess.Popen[bytes]":
    """In the place of a runner: sleeps, and dies with its parent."""
    return _start(["sleep", "1000"], log=log)


_start = processes.start


def main() -> None:
    """Schedule until stopped."""
    url, home, lease_seconds, start_seconds = sys.argv[1:]
    processes.start = idle
    times = {"lease_seconds": float(lease_seconds), "start_seconds": float(start_seconds), "poll_seconds": 0.05}
    settings = Settings(home=Path(home), database_url=url, warm_start=False, **times)
    scheduler.get_settings = lambda: settings
    scheduler.main()


if __name__ == "__main__":
    main()
