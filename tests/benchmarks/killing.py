"""A benchmark that keeps a record of every run, killed and started again."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path


def records_of_killed_and_next_start(command: list[str], folder: Path, workers: int) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The records by name after a kill, two at least and all whole, and after the next start has ended.

    Args:
        folder: of the records.
        workers: processes that the command works with; they see by themselves that it is gone.
    """
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.json"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(3 if workers > 1 else 0)
    before = _records(folder)
    assert len(before) >= 2 and all(json.loads(content)["record"] for content in before.values())
    subprocess.run(command, env=environment, check=True, timeout=300)
    return before, _records(folder)


def _records(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.json")}
