"""The whole service on one machine: starts and supervises a Ray head, a scheduler and the API, and takes them all down.

They are the very processes that a cluster runs, with SQLite and a local folder instead of PostgreSQL and S3. Ray gets
a temporary directory, ports and a secret of its own and a bounded object store, and goes when this goes.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from services import processes

_OBJECT_STORE_BYTES = 1_000_000_000
_START_SECONDS = 60.0
_RESTART_SECONDS = 1.0
_MAX_RESTARTS = 6
_RESTARTS_SECONDS = 60.0
_STOP_SECONDS = {"scheduler": 15.0, "api": 5.0, "ray": 2.0}
"""In this order, and how long each may take; Ray would drain its node for half a minute, with nothing left to drain."""


class ServeError(RuntimeError):
    """The service cannot be started; the message says why and what to do."""


@dataclass
class Embedded:
    """One embedded service.

    Args:
        home: folder of database, artifacts, token and logs.
        host, port: where the API listens; port 0 takes a free one.
        cpus: CPUs that Ray may use; None for all.
    """

    home: Path
    host: str
    port: int
    cpus: int | None = None
    children: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    restarts: "deque[float]" = field(default_factory=lambda: deque(maxlen=_MAX_RESTARTS))

    def run(self) -> int:
        """Serve until stopped; returns the exit status.

        Raises:
            ServeError: the home folder is in use, the port is taken, or a process does not come up.
        """
        self.home = self.home.absolute()
        os.umask(0o077)  # the home folder holds the token, its logs the dashboard's link
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self.home.chmod(0o700)
        except OSError as error:
            raise ServeError(f"cannot use {self.home} as home folder: {error.strerror}; choose another --home") from error
        lock = FileLock(self.home / "serve.lock")
        try:
            with lock.acquire(timeout=0):
                return self._serve()
        except Timeout as error:
            raise ServeError(f"another `glora serve` is using {self.home}{_where(self.home)}; stop it, or choose another --home") from error

    def _serve(self) -> int:
        self.port = _free_port(self.host, self.port)
        self._ray_port, self._ray_token = _free_port("127.0.0.1", 0), secrets.token_hex(32)
        ray_folder = self._ray_folder()
        commands = self._commands(ray_folder)
        signal.signal(signal.SIGTERM, _interrupt)
        signal.signal(signal.SIGINT, _interrupt)  # a shell that starts it in the background has SIGINT ignored
        try:
            for name in commands:
                self._start(name, commands[name])
            self._wait_until_ready()
            self._announce()
            return self._watch(ray_folder)
        except KeyboardInterrupt:
            return 0
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for name, patience in _STOP_SECONDS.items():
                if name in self.children:
                    processes.stop(self.children[name], patience)
            (self.home / "server.json").unlink(missing_ok=True)
            shutil.rmtree(ray_folder, ignore_errors=True)

    def _ray_folder(self) -> str:
        """A short path for Ray's sockets and logs; what a killed service left of its own is removed first."""
        record = self.home / "ray-folder"
        if record.exists():
            shutil.rmtree(record.read_text(), ignore_errors=True)
        folder = tempfile.mkdtemp(prefix="glora-ray-")
        record.write_text(folder)
        return folder

    def _commands(self, ray_folder: str) -> dict[str, list[str]]:
        """What is started, in this order."""
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
        ray += [f"--port={self._ray_port}", f"--temp-dir={ray_folder}", f"--object-store-memory={_OBJECT_STORE_BYTES}"]
        ray += ["--include-dashboard=false", "--disable-usage-stats", *([f"--num-cpus={self.cpus}"] if self.cpus else [])]
        return {
            "ray": ray,
            "api": [sys.executable, "-m", "services.api"],
            "scheduler": [sys.executable, "-m", "services.scheduler"],
        }

    def _environment(self) -> dict[str, str]:
        return {
            "GLORA_HOME": str(self.home),
            "GLORA_HOST": self.host,
            "GLORA_PORT": str(self.port),
            "GLORA_TOKEN": _token(self.home),
            "GLORA_CLUSTER_CPUS": str(self.cpus or os.cpu_count()),
            "GLORA_RAY_ADDRESS": f"127.0.0.1:{self._ray_port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._ray_token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "RAY_prestart_worker_first_driver": "0",  # such workers would serve no job: those of jobs are forked
        }

    def _start(self, name: str, command: list[str]) -> None:
        self.children[name] = processes.start(command, log=self.home / "logs" / f"{name}.log", env=self._environment())

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            for name, process in self.children.items():
                if process.poll() is not None:
                    raise ServeError(
                        f"{name} ended at start with status {process.returncode}:\n{_tail(self.home / 'logs' / f'{name}.log')}"
                    )
            if self._answers():
                return
            if time.monotonic() > deadline:
                raise ServeError(f"the API did not answer within {_START_SECONDS:.0f} s; see {self.home / 'logs'}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/readyz", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    @property
    def _url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def _announce(self) -> None:
        token = _token(self.home)
        record = self.home / "server.json.part"
        record.touch(mode=0o600)
        record.write_text(json.dumps({"url": self._url, "token": token, "pid": os.getpid()}))
        record.replace(self.home / "server.json")
        print(
            f"Dashboard  {self._url}/?token={token}\nAPI        {self._url}/docs\nData       {self.home}\nCtrl-C stops the service.",
            flush=True,
        )

    def _watch(self, ray_folder: str) -> int:
        """Restart whatever ends, within reason. A job that lost its Ray goes on from what SQL holds."""
        while True:
            self._restart_ended(ray_folder)
            time.sleep(0.2)

    def _restart_ended(self, ray_folder: str) -> None:
        for name in list(self.children):
            status = self.children[name].poll()
            if status is not None:
                fallen = self._fallen_with(name)
                self._count_restart(name, status)
                for again in fallen:
                    self._start(again, self._commands(ray_folder)[again])

    def _fallen_with(self, name: str) -> list[str]:
        """What has to be started when a process has ended.

        A driver does not notice that its Ray is gone, and a new Ray on the same port would be besieged by it. So with
        Ray the scheduler is stopped, which gives its jobs back to the queue, and both start at a new address.
        """
        if name != "ray":
            return [name]
        processes.stop(self.children["scheduler"], _STOP_SECONDS["scheduler"])
        self._ray_port = _free_port("127.0.0.1", 0)
        return ["ray", "scheduler"]

    def _count_restart(self, name: str, status: int) -> None:
        self.restarts.append(time.monotonic())
        if len(self.restarts) == _MAX_RESTARTS and self.restarts[-1] - self.restarts[0] < _RESTARTS_SECONDS:
            raise ServeError(f"{name} keeps ending (status {status}); see {self.home / 'logs' / f'{name}.log'}")
        print(f"{name} ended with status {status}; starting it again", flush=True)
        time.sleep(_RESTART_SECONDS)


def _free_port(host: str, port: int) -> int:
    """The port itself if it is free, or any free one for 0. Raises ServeError if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServeError(
                f"cannot listen on {host}:{port} ({error.strerror}); stop what uses it, or choose another --port (0 for a free one)"
            ) from error
        return int(probe.getsockname()[1])


def _token(home: Path) -> str:
    """`GLORA_TOKEN`, or the home folder's token, made at first use and readable by its owner alone."""
    if os.environ.get("GLORA_TOKEN"):
        return os.environ["GLORA_TOKEN"]
    path = home / "token"
    if not path.exists():
        part = path.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(secrets.token_urlsafe(24))
        part.replace(path)
    return path.read_text().strip()


def _where(home: Path) -> str:
    try:
        return f" at {json.loads((home / 'server.json').read_text())['url']}"
    except (OSError, ValueError, KeyError):
        return ""


def _tail(path: Path, lines: int = 12) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
