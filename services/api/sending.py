"""A request that makes a job, which may be sent again: under one idempotency key of its user it makes one job, however often it arrives."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from services.api.problems import Problem
from services.settings import Settings
from services.store import idempotency, jobs
from services.store.database import Database
from services.store.idempotency import KeyTaken
from services.store.models import Job


@dataclass(frozen=True, slots=True)
class Sending:
    """One request that makes a job.

    Attributes:
        user: who sent it.
        text: all of the request; the same text under the same key is the same request.
        key: the idempotency key that it came with, if any.
    """

    database: Database
    settings: Settings
    user: str
    text: str
    key: str | None = None

    def made_before(self) -> Job | None:
        """The job that the key stands for; None if it is new. Raises Problem if it stands for another request."""
        if self.key is None:
            return None
        with self.database.read() as session:
            found = idempotency.find(session, self.user, self.key)
            if found is None:
                return None
            if found.fingerprint != self._fingerprint:
                detail = f"this key was sent with another request, which is job {found.job_id}; send each new request with a key of its own"
                raise Problem(422, "idempotency-key-reused", detail, field="idempotency-key", job=found.job_id)
            return jobs.get(session, found.job_id)

    def make(self, create: Callable[[Session], Job]) -> tuple[Job, bool]:
        """The job that the key stands for, or the one that `create` makes in a transaction, and whether that is so.

        Raises:
            Problem: the key stands for another request; nothing was made.
        """
        made = self.made_before()
        if made is not None:
            return made, False
        try:
            with self.database.write() as session:
                job = create(session)
                if self.key is not None:
                    hours = self.settings.idempotency_hours
                    idempotency.keep(session, self.user, self.key, fingerprint=self._fingerprint, job_id=job.id, hours=hours)
            return job, True
        except KeyTaken:
            first = self.made_before()
            assert first is not None
            return first, False

    @property
    def _fingerprint(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()
