"""A scheduler: claims jobs, starts a runner for each, and sees to those that end without a result.

Holds no Ray connection and loads no torch. Any number of schedulers may share one database.
"""

import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from services import processes
from services.scheduler import leftovers
from services.scheduler.exits import STOPPED
from services.settings import Settings
from services.store import backbones, jobs
from services.store.blobs import BlobStore
from services.store.database import Database
from services.store.errors import LeaseLost
from services.store.jobs import Lease

log = logging.getLogger("glora.scheduler")


@dataclass
class Supervisor:
    """The scheduler's state: who it is, and which processes it has started.

    Args:
        home: folder of the runners' logs, one file per job, and of their work folders.
    """

    settings: Settings
    database: Database
    blobs: BlobStore
    home: Path
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}")
    runners: dict[Lease, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    describers: dict[str, tuple["subprocess.Popen[bytes]", float]] = field(default_factory=dict)

    def step(self) -> None:
        """One look at everything: ended runners, ended describers, new work."""
        self._reap_runners()
        self._reap_describers()
        self._start_describer()
        while len(self.runners) < self.settings.max_running_jobs and self._start_runner():
            pass

    def run(self) -> None:
        """Step until the process is stopped; a database out of reach is waited for."""
        while True:
            try:
                self.step()
            except SQLAlchemyError:
                log.warning("database out of reach", exc_info=True)
            time.sleep(self.settings.poll_seconds)

    def shut_down(self) -> None:
        """Stop all runners and give their jobs back to the queue, for whoever comes next."""
        for lease, process in list(self.runners.items()):
            processes.stop(process)
            self._settle(lease, process.returncode)
        for process, _ in self.describers.values():
            processes.stop(process)

    def _start_runner(self) -> bool:
        with self.database.write() as session:
            lease = jobs.claim(session, self.owner, self.settings.lease_seconds, self.settings.max_attempts)
        if lease is None:
            return False
        self._remove_workdirs(lease.job_id)
        workdir = self.home / "work" / f"{lease.job_id}-{lease.epoch}"
        command = [sys.executable, "-m", "services.scheduler.runner", lease.job_id, lease.owner, str(lease.epoch), str(workdir)]
        self.runners[lease] = processes.start(command, log=self._log(lease.job_id))
        log.info("job %s: runner %d, epoch %d", lease.job_id, self.runners[lease].pid, lease.epoch)
        return True

    def _reap_runners(self) -> None:
        for lease, process in list(self.runners.items()):
            if process.poll() is not None:
                self._settle(lease, process.returncode)

    def _settle(self, lease: Lease, status: int) -> None:
        """Note the end of a runner. Where it left its job running, requeue it, or fail it when it has had its attempts."""
        del self.runners[lease]
        log.info("job %s: runner ended with status %d", lease.job_id, status)
        try:
            with self.database.write() as session:
                jobs.runner_ended(session, lease, clean=status == STOPPED, max_attempts=self.settings.max_attempts, status=status)
        except LeaseLost:
            log.debug("job %s moved on", lease.job_id)
        self._clean_up(lease)

    def _clean_up(self, lease: Lease) -> None:
        """Remove what a runner has left: its work folder and, once the job is over, its training checkpoints and claims."""
        self._remove_workdirs(lease.job_id)
        with self.database.read() as session:
            over = jobs.get(session, lease.job_id).state in jobs.FINAL
        try:
            if over:
                self.blobs.remove_training(lease.job_id)
                leftovers.clear(self.database, self.blobs, lease.job_id)
        except OSError:
            log.warning("training checkpoints of %s not removed", lease.job_id, exc_info=True)

    def _remove_workdirs(self, job_id: str) -> None:
        for folder in (self.home / "work").glob(f"{job_id}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def _start_describer(self) -> None:
        if self.describers:
            return
        with self.database.write() as session:
            row = backbones.claim(session)
        if row is not None:
            command = [sys.executable, "-m", "services.scheduler.describe", row.key]
            self.describers[row.key] = processes.start(command, log=self._log("describe")), time.monotonic()

    def _reap_describers(self) -> None:
        for key, (process, started) in list(self.describers.items()):
            if process.poll() is None and time.monotonic() - started < self.settings.describe_seconds:
                continue
            processes.stop(process)
            del self.describers[key]
            if process.returncode:
                with self.database.write() as session:
                    backbones.describe(session, key, info=None, error="describing it failed or took too long; see describe.log")
