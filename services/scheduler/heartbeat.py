"""The heartbeat of a runner. Loads neither torch nor ray, so that it beats before these are loaded."""

import logging
import os
import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from services.scheduler.exits import LOST, OVER
from services.settings import Settings
from services.store import jobs
from services.store.database import Database
from services.store.errors import LeaseLost
from services.store.jobs import Lease

log = logging.getLogger("glora.runner")


class Heartbeat(threading.Thread):
    """Renews the lease, and ends the process when the lease is lost or the job is cancelled.

    A second thread ends the process when the lease has run out, however long a renewal hangs in the database.
    """

    def __init__(self, settings: Settings, database: Database, lease: Lease) -> None:
        super().__init__(daemon=True, name="heartbeat")
        self._settings, self._database, self._lease = settings, database, lease
        self._renewed = time.monotonic()

    def run(self) -> None:
        """Beat until the process ends."""
        threading.Thread(target=self._watch, daemon=True, name="lease-watch").start()
        while True:
            asked = time.monotonic()
            try:
                if jobs.renew(self._database, self._lease, self._settings.lease_seconds):
                    self._cancel()
                self._renewed = asked
            except LeaseLost:
                os._exit(LOST)
            except SQLAlchemyError:
                log.warning("lease of %s not renewed", self._lease.job_id, exc_info=True)
            time.sleep(self._settings.heartbeat_seconds)

    def _watch(self) -> None:
        while time.monotonic() - self._renewed < self._settings.lease_seconds:
            time.sleep(self._settings.heartbeat_seconds)
        log.error("lease of %s ran out", self._lease.job_id)
        os._exit(LOST)

    def _cancel(self) -> None:
        with jobs.fenced(self._database, self._lease) as (session, job):
            jobs.cancelled(session, job)
        log.info("job %s cancelled", self._lease.job_id)
        os._exit(OVER)
