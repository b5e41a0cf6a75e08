"""The part of the client that speaks of studies: sweeps of a job's settings.

study = client.submit_study({"base": {…}, "sweep": {"search.population": {"values": [20, 50]}}})
client.wait_study(study["id"])["trials"]
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from services.client.errors import AWAY, ServiceError

_OVER = ("succeeded", "failed", "cancelled")


class StudyCalls(ABC):
    """Calls about studies; a mixin of `Client`, which sends them."""

    def submit_study(self, request: dict[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """Submit a study; returns it as queued. It is sent again as a job's submission is.

        Raises:
            ServiceError: a field or a trial is refused, or nothing answers.
        """
        return self._submitted("/v1/studies", request, idempotency_key)

    def study(self, study_id: str) -> dict[str, Any]:
        """A study with its `state` and its `trials` side by side."""
        return self._json("GET", _path(study_id))

    def studies(self, state: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The newest studies, of one state if given."""
        rows: list[dict[str, Any]] = self._json("GET", "/v1/studies", params={"limit": limit} | ({"state": state} if state else {}))[
            "items"
        ]
        return rows

    def study_reports(self, study_id: str) -> list[dict[str, Any]]:
        """What a study's trials have reached along the way, in the order in which they did."""
        rows: list[dict[str, Any]] = self._json("GET", f"{_path(study_id)}/reports")["items"]
        return rows

    def cancel_study(self, study_id: str) -> dict[str, Any]:
        """End a study and cancel its jobs."""
        return self._json("POST", f"{_path(study_id)}/cancel")

    def delete_study(self, study_id: str) -> None:
        """Delete a study that is over; its jobs stay."""
        self._delete(_path(study_id))

    def follow_study(self, study_id: str, poll_seconds: float = 1.0, patience_seconds: float = 60.0) -> Iterator[dict[str, Any]]:
        """The study as it is now, and again and again until it is over, that last state included.

        Raises:
            ServiceError: no such study, or the service was out of reach for `patience_seconds`.
        """
        alive = time.monotonic()
        while True:
            try:
                study = self.study(study_id)
            except ServiceError as error:
                if error.status not in (0, *AWAY) or time.monotonic() - alive > patience_seconds:
                    raise
            else:
                alive = time.monotonic()
                yield study
                if study["state"] in _OVER:
                    return
            time.sleep(poll_seconds)

    def wait_study(self, study_id: str, poll_seconds: float = 1.0) -> dict[str, Any]:
        """The study once it is over."""
        *_, last = self.follow_study(study_id, poll_seconds)
        return last

    @abstractmethod
    def _submitted(self, path: str, request: dict[str, Any], idempotency_key: str | None) -> dict[str, Any]:
        """Post a request, again where that may help, under one idempotency key."""

    @abstractmethod
    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send a request; returns the object that answers it."""

    @abstractmethod
    def _delete(self, path: str) -> None:
        """Delete what is at a path."""


def _path(study_id: str) -> str:
    return f"/v1/studies/{quote(study_id, safe='')}"
