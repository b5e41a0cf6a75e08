"""Says by events of a running job that it waits for room on a cluster which others hold, and when it has found some."""

import logging

from ray.exceptions import RayError
from sqlalchemy.exc import SQLAlchemyError

from services.cluster.resources import no_room
from services.scheduler.context import RunContext
from services.store.errors import LeaseLost

log = logging.getLogger("glora.room")

_LOOKS = 4
"""Looks in a row at which nothing is at work and nothing fits: a process that starts holds its place before it is at work."""


class Room:
    """Called again and again with whether any process of the job is at work."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._idle, self._told = 0, False

    def __call__(self, busy: bool) -> None:
        """Tell of what has changed. What cannot be stored now is told at the next look."""
        try:
            lacking = None if busy else self._lacking()
            self._idle = 0 if lacking is None else self._idle + 1
            if lacking is not None and self._idle >= _LOOKS and not self._told:
                self._context.emit("room_awaited", {"message": lacking})
                self._told = True
            elif lacking is None and self._told:
                self._context.emit("room_found", {})
                self._told = False
        except (RayError, SQLAlchemyError, LeaseLost):
            log.warning("waiting for room not told", exc_info=True)

    def _lacking(self) -> str | None:
        """What there is no room for, of what the job asks of the cluster."""
        wants = self._context.wants
        return None if wants is None else no_room(wants.count, wants.share, wants.name)
