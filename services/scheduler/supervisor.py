"""A scheduler: claims jobs, starts a runner for each, and sees to those that end without a result.

Holds no Ray connection and loads no torch. Any number of schedulers may share one database.
"""

import logging
import os
import secrets
import shutil
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from services import processes
from services.processes import Child
from services.scheduler import leftovers
from services.scheduler.exits import STOPPED
from services.scheduler.runner_log import RunnerLog
from services.scheduler.studies import StudyDrivers
from services.scheduler.warm import Starter
from services.settings import Settings
from services.store import backbones, job_logs, jobs, schedulers
from services.store.blobs import BlobStore
from services.store.database import Database
from services.store.errors import LeaseLost
from services.store.jobs import Lease
from services.store.models import Job
from services.store.queue import Quotas
from services.store.retries import RetryRules

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
    starter: Starter = field(default_factory=Starter)
    runners: dict[Lease, Child] = field(default_factory=dict)
    starting: dict[Lease, tuple[datetime, float]] = field(default_factory=dict)
    logs: dict[Lease, RunnerLog] = field(default_factory=dict)
    logs_kept: float = 0.0
    beaten: float = 0.0
    swept: float = 0.0
    studies: StudyDrivers = field(init=False)
    describers: dict[tuple[str, datetime], tuple[Child, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Studies are driven in the scheduler's name."""
        self.studies = StudyDrivers(self.settings, self.database, self.home, self.owner, self.starter)

    def step(self) -> None:
        """One look at everything: ended runners, ended describers, new work."""
        self._beat()
        self._sweep()
        self._keep_starting()
        self._keep_logs()
        self._reap_runners()
        self._reap_describers()
        self.studies.step()
        if not self.starter.loading:
            self._start_describer()
            while len(self.runners) < self.settings.max_running_jobs and self._start_runner():
                pass

    def run(self) -> None:
        """Step until the process is stopped; a database out of reach, or a disk that is full, is waited for."""
        while True:
            try:
                if self.settings.warm_start:
                    self.starter.keep_warm()
                self.step()
            except (SQLAlchemyError, OSError):
                log.warning("database or disk out of reach", exc_info=True)
            time.sleep(self.settings.poll_seconds)

    def shut_down(self) -> None:
        """Stop all runners and drivers of studies, and give jobs and studies back, for whoever comes next."""
        self.studies.shut_down()
        for lease, process in list(self.runners.items()):
            self._settle(lease, processes.stop(process), shutting_down=True)
        for process, _ in self.describers.values():
            processes.stop(process)
        with self.database.write() as session:
            schedulers.leave(session, self.owner)

    def _start_runner(self) -> bool:
        with self.database.write() as session:
            lease = jobs.claim(session, self.owner, self.settings.lease_seconds, RetryRules.of(self.settings), Quotas.of(self.settings))
            expires_at = None if lease is None else jobs.get(session, lease.job_id).lease_expires_at
        if lease is None or expires_at is None:
            return False
        self._remove_workdirs(lease)
        workdir = self.home / "work" / f"{lease.job_id}-{lease.epoch}"
        arguments = [lease.job_id, lease.owner, str(lease.epoch), str(workdir)]
        runner_log = RunnerLog.beginning(self._log(lease.job_id))
        try:
            runner = self.starter.start("services.scheduler.runner", arguments, log=runner_log.path)
        except OSError as error:
            self._give_back(lease, error)
            return False
        self.runners[lease], self.logs[lease], self.starting[lease] = runner, runner_log, (expires_at, time.monotonic())
        log.info("job %s: runner %d, epoch %d", lease.job_id, self.runners[lease].pid, lease.epoch)
        return True

    def _give_back(self, lease: Lease, error: OSError) -> None:
        """Let a job wait whose runner could not be started, because the disk is full for example."""
        log.error("job %s: runner not started: %s", lease.job_id, error)
        message = f"its runner could not be started: {error}"
        try:
            with jobs.fenced(self.database, lease) as (session, job):
                jobs.attempt_failed(session, job, RetryRules.of(self.settings), "artifact_unavailable", message)
        except LeaseLost:
            log.debug("job %s moved on", lease.job_id)

    def _beat(self) -> None:
        """Tell users of the queue that this scheduler is at work."""
        if time.monotonic() - self.beaten >= self.settings.lease_seconds / 3:
            with self.database.write() as session:
                schedulers.beat(session, self.owner, self.settings.max_running_jobs, self.settings.lease_seconds)
            self.beaten = time.monotonic()

    def _keep_starting(self) -> None:
        """Hold the leases of runners that load their libraries, which may take longer than a lease; end one that takes too long."""
        for lease, (expires_at, started) in list(self.starting.items()):
            if time.monotonic() - started > self.settings.start_seconds:
                log.error("job %s: runner has not started in time", lease.job_id)
                processes.stop(self.runners[lease], patience_seconds=1)
            try:
                kept = jobs.keep_starting(self.database, lease, self.settings.lease_seconds, expires_at)
            except LeaseLost:
                kept = None
            if kept is None or self.runners[lease].poll() is not None:
                del self.starting[lease]
            else:
                self.starting[lease] = kept, started

    def _reap_runners(self) -> None:
        for lease, process in list(self.runners.items()):
            status = process.poll()
            if status is not None:
                self._settle(lease, status)

    def _settle(self, lease: Lease, status: int, shutting_down: bool = False) -> None:
        """Note the end of a runner. Where it left its job running, requeue it, or fail it when it has had its attempts.

        A runner stays among the runners until its end is stored, or seen to be nobody's concern any more. One that is stopped with the
        scheduler before it can listen ends by the signal itself, and has not failed.
        """
        log.info("job %s: runner ended with status %d", lease.job_id, status)
        self._keep_log(lease)
        clean = status == STOPPED or (shutting_down and status == -signal.SIGTERM)
        try:
            with self.database.write() as session:
                jobs.runner_ended(session, lease, clean=clean, rules=RetryRules.of(self.settings), status=status)
        except LeaseLost:
            log.debug("job %s moved on", lease.job_id)
        del self.runners[lease], self.logs[lease]
        self.starting.pop(lease, None)
        self._clean_up(lease)

    def _keep_logs(self) -> None:
        """Store what running jobs have printed, every few seconds."""
        if time.monotonic() - self.logs_kept >= self.settings.log_seconds:
            self.logs_kept = time.monotonic()
            for lease in self.runners:
                self._keep_log(lease)

    def _keep_log(self, lease: Lease) -> None:
        news = self.logs[lease].news()
        if news is None:
            return
        try:
            with self.database.write() as session:
                job_logs.keep(session, lease, *news)
        except LeaseLost:
            log.debug("job %s moved on", lease.job_id)
        self.logs[lease].tell(news[1])

    def _clean_up(self, lease: Lease) -> None:
        """Remove what a runner has left: its work folder and, once the job is over, its training checkpoints and claims."""
        self._remove_workdirs(lease)
        threading.Thread(target=self._clear_store, args=(lease.job_id,), daemon=True).start()  # leases are kept, however slow the store

    def _clear_store(self, job_id: str) -> None:
        try:
            with self.database.read() as session:
                job = session.get(Job, job_id)
            if job is None or job.state in jobs.FINAL:
                self.blobs.remove_training(job_id)
                leftovers.clear(self.database, self.blobs, job_id)
        except (SQLAlchemyError, OSError):
            log.warning("training checkpoints of %s not removed; they are looked for again", job_id, exc_info=True)

    def _sweep(self) -> None:
        """Clean up after runners that ended with the scheduler that had started them, in this home; their leases must be over."""
        if self.swept and time.monotonic() - self.swept < self.settings.lease_seconds:
            return
        mine = {f"{lease.job_id}-{lease.epoch}" for lease in self.runners}
        for folder in (self.home / "work").glob("j*-*"):
            job_id, _, epoch = folder.name.rpartition("-")
            with self.database.read() as session:
                job = session.get(Job, job_id)
            held = job is not None and job.state == "running" and job.lease_epoch == int(epoch)
            if folder.name not in mine and not held:
                self._clean_up(Lease(job_id, self.owner, int(epoch)))
        self.swept = time.monotonic()
        threading.Thread(target=self._sweep_store, daemon=True).start()  # leases are kept meanwhile, however slow the store

    def _sweep_store(self) -> None:
        try:
            leftovers.sweep(self.database, self.blobs)
        except (SQLAlchemyError, OSError):
            log.warning("training checkpoints not looked through", exc_info=True)

    def _remove_workdirs(self, lease: Lease) -> None:
        """Of this lease and those before it; a later one's, which another scheduler with the same home may have taken, is not ours."""
        for folder in (self.home / "work").glob(f"{lease.job_id}-*"):
            if int(folder.name.rpartition("-")[2]) <= lease.epoch:
                shutil.rmtree(folder, ignore_errors=True)

    def _log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def _start_describer(self) -> None:
        if self.describers:
            return
        with self.database.write() as session:
            row = backbones.claim(session)
        if row is not None:
            arguments = [row.key, row.requested_at.isoformat()]
            describer = self.starter.start("services.scheduler.describe", arguments, log=self._log("describe"))
            self.describers[row.key, row.requested_at] = describer, time.monotonic()

    def _reap_describers(self) -> None:
        for (key, claimed_at), (process, started) in list(self.describers.items()):
            if process.poll() is None and time.monotonic() - started < self.settings.describe_seconds:
                continue
            processes.stop(process)
            del self.describers[key, claimed_at]
            if process.returncode:
                with self.database.write() as session:
                    error = "describing it failed or took too long; see describe.log"
                    backbones.describe(session, key, claimed_at, info=None, error=error)
