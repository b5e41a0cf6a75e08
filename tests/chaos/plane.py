"""The control plane: database, artifact store, API and two scheduler replicas, each a process that can be lost on its own."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import httpx
from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError

from services import processes
from services.client import Client
from services.store.database import Database
from services.store.models import Backbone, Base, Job
from tests.servers.ports import free_port

PATIENCE_SECONDS = 900.0
"""For whatever should come to pass: more than it takes on a machine that is busy with other things."""

REPLICAS = ("a", "b")
_KEPT = {"backbones", "clock_anchors", "schedulers"}


@dataclass
class Plane:
    """One control plane over a Ray cluster.

    Args:
        root: its logs; scheduler replicas have their homes in `home`.
        home: folder of the schedulers' work folders, and of the artifacts where they are files.
        env: of all its processes: where database, artifacts and Ray are.
        database: the same database, reached directly.
        files: the same artifact store, reached directly: file system and folder.
    """

    root: Path
    home: Path
    env: Mapping[str, str]
    database: Database
    files: tuple[Any, str]
    port: int = field(default_factory=free_port)
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    api: "subprocess.Popen[bytes] | None" = None
    schedulers: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        """A client of the API."""
        return Client(f"http://127.0.0.1:{self.port}", self.token)

    def start(self) -> None:
        """Start what does not run; returns once the API answers."""
        self.start_api()
        for name in REPLICAS:
            if name not in self.schedulers or self.schedulers[name].poll() is not None:
                self.schedulers[name] = self._start(f"scheduler-{name}", "services.scheduler", {"GLORA_HOME": str(self.home / name)})
        self.thaw()
        until(self.answers, "the API to answer")

    def start_api(self) -> None:
        """Start the API if it does not run."""
        if self.api is None or self.api.poll() is not None:
            self.api = self._start("api", "services.api", {"GLORA_HOME": str(self.home / "api")})

    def answers(self) -> bool:
        """Whether the API can work."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def freeze(self) -> None:
        """Stop both replicas, outside of any transaction of theirs, so that jobs wait."""
        while True:
            for process in self.schedulers.values():
                process.send_signal(signal.SIGSTOP)
            if self._writable():
                return
            self.thaw()
            time.sleep(0.1)

    def thaw(self) -> None:
        """Let the replicas that still exist go on."""
        for process in self.schedulers.values():
            process.send_signal(signal.SIGCONT)

    def replica_of(self, job_id: str) -> str:
        """The scheduler that has a job's lease; any if none has."""
        owner = (self.job(job_id).lease_owner or "").split("-")
        return next((name for name, process in self.schedulers.items() if str(process.pid) in owner), REPLICAS[0])

    def kill_scheduler(self, name: str) -> None:
        """Kill a replica; its runners die with it."""
        self.schedulers[name].kill()
        self.schedulers[name].wait()

    def job(self, job_id: str) -> Job:
        """A job's row."""
        found: Job = self.look(lambda: self._job(job_id))
        return found

    def described(self) -> bool:
        """Whether a backbone has been described, which takes a scheduler."""
        with self.database.read() as session:
            return session.scalar(select(Backbone.key).where(Backbone.state == "ready").limit(1)) is not None

    def look(self, question: Callable[[], Any]) -> Any:
        """What a question to the database answers, asked again while the database is out of reach."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return question()
            except SQLAlchemyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def clear(self) -> None:
        """Forget every job and all that came of them; what backbones are like stays known."""
        with self.database.write() as session:
            for table in reversed(Base.metadata.sorted_tables):
                if table.name not in _KEPT:
                    session.execute(delete(table))
        files, folder = self.files
        if files.exists(folder):
            files.rm(folder, recursive=True)
        files.makedirs(folder, exist_ok=True)

    def stop(self) -> None:
        """End every process."""
        for process in (*self.schedulers.values(), self.api):
            if process is not None:
                process.send_signal(signal.SIGCONT)
                processes.stop(process, 20)
        self.database.dispose()

    def _writable(self) -> bool:
        """Whether no replica was stopped while it held a lock."""
        if self.database.engine.dialect.name != "sqlite":
            return True
        try:
            with self.database.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA busy_timeout=1000")
            with self.database.write():
                return True
        except SQLAlchemyError:
            return False

    def _job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def _start(self, name: str, module: str, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        own = {"GLORA_HOST": "127.0.0.1", "GLORA_PORT": str(self.port), "GLORA_TOKEN": self.token}
        command = [sys.executable, "-m", module]
        return processes.start(command, log=self.root / "logs" / f"{name}.log", env={**os.environ, **self.env, **own, **env})


def until(condition: Callable[[], bool], what: str, every: float = 0.1) -> None:
    """Wait until a condition holds. Raises TimeoutError, with what was awaited."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_SECONDS:.0f} s in vain for {what}")
        time.sleep(every)


def files_at(url: str, endpoint: str = "") -> tuple[Any, str]:
    """File system and folder of an artifact store's URL, without any cache."""
    options: dict[str, Any] = {"client_kwargs": {"endpoint_url": endpoint}, "use_listings_cache": False} if endpoint else {}
    found: tuple[Any, str] = fsspec.core.url_to_fs(url, **options)
    return found
