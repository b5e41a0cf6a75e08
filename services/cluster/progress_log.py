"""Where a training's first worker leaves its finished epochs and its driver fetches them: a small actor, since Ray Train's controller
runs elsewhere.

Holds plain values and imports nothing, so that its process is there at once and does not load torch.
"""

import time
from typing import Any

Row = dict[str, Any]
"""The fields of a `Progress`."""


class ProgressLog:
    """Collects epochs reported by the first worker until the caller fetches them, and tells the worker of a pause in return.

    Args:
        patience_seconds: after which a caller that has fetched nothing is taken to be gone.
    """

    def __init__(self, patience_seconds: float) -> None:
        self._rows: list[Row] = []
        self._pausing = False
        self._patience_seconds, self._drained = patience_seconds, time.monotonic()

    def push(self, row: Row) -> bool:
        """Add a finished epoch; returns whether it is to be the last for now: a pause is asked for, or nobody listens any more."""
        self._rows.append(row)
        return self._pausing or time.monotonic() - self._drained > self._patience_seconds

    def drain(self, pausing: bool) -> list[Row]:
        """All epochs since the last call; passes on whether a pause is asked for."""
        self._pausing, self._drained = pausing, time.monotonic()
        rows, self._rows = self._rows, []
        return rows
