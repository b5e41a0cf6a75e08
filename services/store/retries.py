"""Is a failed attempt worth another one, how many, and when? Pure functions of reason, job and attempt.

What an outage or a lost process causes may pass, so it is tried again, later each time. What follows from the request, such as a
data set that cannot be read or a training that diverges, would come out the same and is not.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.settings import Settings

LOST = frozenset({"runner_lost", "worker_lost", "node_lost", "artifact_missing"})
"""A process or machine that took part was lost; another will do, unless the job itself kills them. Or a stored file is not there, which
a store that answers late may yet have.
"""

OUTAGES = frozenset({"artifact_unavailable", "database_unavailable", "cluster_unavailable"})
"""Something that the job needs was out of reach; it is not the job's fault, and no outage of a night shall
use up the attempts of all that is in the queue."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How often and when failed jobs are tried again.

    Args:
        attempts: in a row without progress, of jobs whose processes were lost.
        outage_attempts: the same, where something was out of reach.
        outage_seconds: since the first of these in a row after which there is no further one.
        first_seconds: longest wait before the second attempt; it doubles with each further one.
        longest_seconds: that it never exceeds.
    """

    attempts: int = 3
    outage_attempts: int = 500
    outage_seconds: float = 6 * 3600.0
    first_seconds: float = 1.0
    longest_seconds: float = 60.0

    @classmethod
    def of(cls, settings: Settings) -> "RetryRules":
        """The rules of a service's settings."""
        outages = settings.max_outage_attempts, 3600 * settings.max_outage_hours
        return cls(settings.max_attempts, *outages, settings.retry_seconds, settings.retry_longest_seconds)

    def allowed(self, reason: str) -> int:
        """Attempts that a job has when this is why the last one failed; 1: it is not tried again."""
        return self.attempts if reason in LOST else self.outage_attempts if reason in OUTAGES else 1

    def after(self, last: Mapping[str, Any] | None, attempts: int, reason: str, now: datetime) -> tuple[dict[str, Any], bool]:
        """What is remembered once another attempt has failed, and whether there is a further one.

        Args:
            last: what was remembered before; rows of old lack parts of it.
            attempts: that failed before, in a row without progress; where it is 0, nothing that was remembered counts.
        """
        told, kind = (last or {}) if attempts else {}, self.kind(reason)
        counts = dict(told.get("counts") or {self.kind(told.get("reason", "runner_lost")): attempts})
        failed = counts[kind] = counts.get(kind, 0) + 1
        kept = {"attempt": failed + 1, "of": self.allowed(reason), "counts": {name: count for name, count in counts.items() if count}}
        since = told.get("outage_since") or (now.isoformat() if kind == "outage" else None)
        if since is not None:
            kept["outage_since"] = since
        lasting = kind == "outage" and (now - datetime.fromisoformat(str(since))).total_seconds() >= self.outage_seconds
        return kept, failed < self.allowed(reason) and not lasting

    @staticmethod
    def kind(reason: str) -> str:
        """What attempts are counted by: those that an outage has ended do not count against a job whose worker is lost later."""
        return "lost" if reason in LOST else "outage" if reason in OUTAGES else "other"

    def wait_seconds(self, job_id: str, failed: int) -> float:
        """How long to wait after so many failed attempts: exponential, less up to a half that differs from job to job.

        The same job waits as long after the same attempt wherever that is asked, and many jobs that an outage failed at the same
        moment do not come back at the same moment.
        """
        digest = hashlib.sha256(f"{job_id}:{failed}".encode()).digest()
        share = int.from_bytes(digest[:8]) / 2**64
        return min(self.longest_seconds, self.first_seconds * 2.0 ** min(failed - 1, 60)) * (1 - share / 2)
