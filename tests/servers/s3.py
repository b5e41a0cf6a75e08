"""A real S3 endpoint for tests: moto's server in a process of its own, in memory, on loopback."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from services import processes
from tests.servers.ports import free_port

ENVIRONMENT: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
"""Credentials that moto accepts, and nothing of whoever runs the tests."""

_START_SECONDS = 60


@contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """A running server, as its endpoint's URL, with `ENVIRONMENT` in place; its output goes to `log`."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    process = processes.start([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], log=log)
    try:
        _wait(process, endpoint, log)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ENVIRONMENT.items():
                patch.setenv(name, value)
            patch.delenv("AWS_PROFILE", raising=False)
            yield endpoint
    finally:
        processes.stop(process)


def _wait(process: "subprocess.Popen[bytes]", endpoint: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.05)
    raise RuntimeError(f"moto's server does not answer at {endpoint}:\n{log.read_text()}")
