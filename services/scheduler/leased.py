"""What a process does that owns something under a lease, whatever that is: renew it, end with it, and not lose what it has failed of.

The runner of a job and the driver of a study are such processes, each started by a scheduler.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from types import FrameType

from sqlalchemy.exc import SQLAlchemyError

from services.scheduler.exits import LOST, STOPPED
from services.settings import Settings
from services.store.errors import LeaseLost

log = logging.getLogger("glora.lease")


def _nothing() -> None:
    """Nothing."""


class Heartbeat(threading.Thread):
    """Renews a lease, and ends the process when it is lost.

    A second thread ends the process when the lease has run out, however long a renewal hangs in the database.

    Args:
        what: the job or study, for the log.
        renew: extends the lease once. May raise LeaseLost.
        heed: looked at after every renewal.
    """

    def __init__(self, settings: Settings, what: str, renew: Callable[[], object], heed: Callable[[], None] = _nothing) -> None:
        super().__init__(daemon=True, name="heartbeat")
        self._settings, self._what, self._renew, self._heed = settings, what, renew, heed
        self._renewed = time.monotonic()

    def run(self) -> None:
        """Beat until the process ends."""
        threading.Thread(target=self._watch, daemon=True, name="lease-watch").start()
        while True:
            asked = time.monotonic()
            try:
                self._renew()
                self._renewed = asked
                self._heed()
            except LeaseLost:
                os._exit(LOST)
            except SQLAlchemyError:
                log.warning("lease of %s not renewed", self._what, exc_info=True)
            time.sleep(self._settings.heartbeat_seconds)

    def _watch(self) -> None:
        while time.monotonic() - self._renewed < self._settings.lease_seconds:
            time.sleep(self._settings.heartbeat_seconds)
        log.error("lease of %s ran out", self._what)
        os._exit(LOST)


def until_stored(settings: Settings, what: str, store: Callable[[], int]) -> int:
    """The exit status that storing a failure gives; a database that is out of reach is waited for, as long as the lease lasts."""
    while True:
        try:
            return store()
        except LeaseLost:
            return LOST
        except SQLAlchemyError:
            log.warning("failure of %s not stored", what, exc_info=True)
            time.sleep(settings.heartbeat_seconds)


def stop(number: int, frame: FrameType | None) -> None:
    """End the process at once, as a handler of SIGTERM."""
    os._exit(STOPPED)
