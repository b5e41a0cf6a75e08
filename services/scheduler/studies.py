"""A scheduler's part in studies: claims them, starts a driver for each, and sees to those that end without having concluded.

Holds no Ray connection, like the scheduler that steps it.
"""

import logging
import shutil
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from services import processes
from services.processes import Child
from services.scheduler.exits import STOPPED
from services.scheduler.warm import Starter
from services.settings import Settings
from services.store import studies, study_leases
from services.store.database import Database
from services.store.errors import LeaseLost
from services.store.retries import RetryRules
from services.store.study_leases import StudyLease

log = logging.getLogger("glora.scheduler")


@dataclass
class StudyDrivers:
    """The drivers that a scheduler has started.

    Args:
        home: folder of their logs, one file per study, and of their work folders.
        owner: the scheduler's name.
        starter: the scheduler's.
    """

    settings: Settings
    database: Database
    home: Path
    owner: str
    starter: Starter
    running: dict[StudyLease, Child] = field(default_factory=dict)
    starting: dict[StudyLease, tuple[datetime, float]] = field(default_factory=dict)

    def step(self) -> None:
        """One look at everything: drivers that start, drivers that have ended, studies that wait for one."""
        self._keep_starting()
        for lease, process in list(self.running.items()):
            status = process.poll()
            if status is not None:
                self._settle(lease, status)
        while not self.starter.loading and len(self.running) < self.settings.max_running_studies and self._start():
            pass

    def shut_down(self) -> None:
        """Stop all drivers and give their studies back, for whoever comes next."""
        for lease, process in list(self.running.items()):
            self._settle(lease, processes.stop(process))

    def _start(self) -> bool:
        with self.database.write() as session:
            lease = study_leases.claim(session, self.owner, self.settings.lease_seconds, RetryRules.of(self.settings))
            expires_at = None if lease is None else studies.get(session, lease.study_id).lease_expires_at
        if lease is None or expires_at is None:
            return False
        self._remove_workdirs(lease)
        workdir = self.home / "work" / f"{lease.study_id}-{lease.epoch}"
        arguments = [lease.study_id, lease.owner, str(lease.epoch), str(workdir)]
        try:
            process = self.starter.start("services.scheduler.study_runner", arguments, log=self.home / "logs" / f"{lease.study_id}.log")
        except OSError as error:
            log.error("study %s: driver not started: %s", lease.study_id, error)
            self._give_up(lease, clean=False, status=error.errno or 1)
            return False
        self.running[lease], self.starting[lease] = process, (expires_at, time.monotonic())
        log.info("study %s: driver %d, epoch %d", lease.study_id, process.pid, lease.epoch)
        return True

    def _keep_starting(self) -> None:
        """Hold the leases of drivers that load their libraries, which may take longer than a lease; end one that takes too long."""
        for lease, (expires_at, started) in list(self.starting.items()):
            if time.monotonic() - started > self.settings.start_seconds:
                log.error("study %s: driver has not started in time", lease.study_id)
                processes.stop(self.running[lease], patience_seconds=1)
            try:
                kept = study_leases.renew(self.database, lease, self.settings.lease_seconds, expires_at)
            except LeaseLost:
                kept = None
            if kept is None or self.running[lease].poll() is not None:
                del self.starting[lease]
            else:
                self.starting[lease] = kept, started

    def _settle(self, lease: StudyLease, status: int) -> None:
        log.info("study %s: driver ended with status %d", lease.study_id, status)
        self._give_up(lease, clean=status == STOPPED, status=status)
        del self.running[lease]
        self.starting.pop(lease, None)
        self._remove_workdirs(lease)

    def _give_up(self, lease: StudyLease, *, clean: bool, status: int) -> None:
        """Let a study wait for its next driver, if this one has left it running."""
        try:
            with self.database.write() as session:
                study_leases.ended(session, lease, clean=clean, rules=RetryRules.of(self.settings), status=status)
        except LeaseLost:
            log.debug("study %s moved on", lease.study_id)

    def _remove_workdirs(self, lease: StudyLease) -> None:
        """Of this lease and those before it; a later one's, which another scheduler with the same home may have taken, is not ours."""
        for folder in (self.home / "work").glob(f"{lease.study_id}-*"):
            if int(folder.name.rpartition("-")[2]) <= lease.epoch:
                shutil.rmtree(folder, ignore_errors=True)
