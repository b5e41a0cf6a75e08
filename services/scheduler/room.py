"""Says by events of a running job that it waits for room on a cluster which others hold, and when it has found some."""

import logging

from ray.exceptions import RayError
from sqlalchemy.exc import SQLAlchemyError

from services.cluster.resources import Share, no_room
from services.scheduler.context import RunContext
from services.store.errors import LeaseLost

log = logging.getLogger("glora.room")

_LOOKS = 2
"""Looks in a row at which nothing is at work and nothing fits: between two things that it does, a job has nothing at work for a moment."""


class Room:
    """Called again and again with whether any process of the job is at work."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._idle, self._told = 0, False

    def __call__(self, busy: bool) -> None:
        """Tell of what has changed. What cannot be stored now is told at the next look."""
        try:
            lacking = None if busy else no_room(*self._wanted())
            self._idle = 0 if lacking is None else self._idle + 1
            if lacking is not None and self._idle >= _LOOKS and not self._told:
                self._context.emit("room_awaited", {"message": lacking})
                self._told = True
            elif lacking is None and self._told:
                self._context.emit("room_found", {})
                self._told = False
        except (RayError, SQLAlchemyError, LeaseLost):
            log.warning("waiting for room not told", exc_info=True)

    def _wanted(self) -> tuple[int, Share, str]:
        """What the job's phase asks the cluster for at least."""
        context = self._context
        if context.phase == "train":
            return context.request.training.workers, context.worker_share, "training worker"
        if context.phase == "search":
            return 1, context.evaluator_share, "evaluator"
        return 1, context.worker_share, "process"
