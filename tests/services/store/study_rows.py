"""Studies that the tests need, each with as little in it as the schema allows."""

from datetime import timedelta
from typing import Any

from sqlalchemy import update

from services.store import backbones, clock, jobs, studies, study_leases, study_progress
from services.store.database import Database
from services.store.jobs import Lease
from services.store.models import Study
from services.store.queue import Quotas
from services.store.retries import RetryRules
from services.store.studies import Point, Sent
from services.store.study_leases import StudyLease
from services.store.study_progress import Report
from tests.services.store.rows import SPEC

FREE = Quotas()


def add_study(database: Database, trials: int = 2, *, key: str | None = None, user: str = "default", fingerprint: str = "f") -> str:
    """A queued study of so many trials; returns its id."""
    with database.write() as session:
        backbone = backbones.request(session, SPEC).key
        session.flush()
        points = [Point({"seed": n}, {"budget": 7, "seed": n}, backbone, {"classes": ["a"]}) for n in range(1, trials + 1)]
        request: dict[str, Any] = {"sweep": {"seed": {"values": list(range(1, trials + 1))}}}
        sent = Sent(key, fingerprint, 24.0)
        study = studies.create(session, name="sweep", user=user, request=request, metric="accuracy", points=points, sent=sent)
        return study.id


def claim_study(database: Database, owner: str = "driver", attempts: int = 3) -> StudyLease | None:
    """Claim a study for an hour."""
    with database.write() as session:
        return study_leases.claim(session, owner, 3600, RetryRules(attempts=attempts))


def driven(database: Database, trials: int = 2) -> StudyLease:
    """A study under a lease that holds for long; there must be no other to claim."""
    study_id = add_study(database, trials)
    lease = claim_study(database)
    assert lease is not None and lease.study_id == study_id
    return lease


def submit(database: Database, lease: StudyLease, number: int, quotas: Quotas = FREE) -> str:
    """The job of a trial; returns its id."""
    with study_leases.fenced(database, lease) as (session, study):
        return study_progress.submit(session, study, number, quotas)


def record(database: Database, lease: StudyLease, report: Report, stop: str | None = None) -> None:
    """Store a report."""
    with study_leases.fenced(database, lease) as (session, study):
        study_progress.record(session, study, report, stop)


def expire_study(database: Database, study_id: str) -> None:
    """Let the lease of a study run out."""
    with database.write() as session:
        past = clock.now(session) - timedelta(seconds=1)
        session.execute(update(Study).where(Study.id == study_id).values(lease_expires_at=past))


def run_job(database: Database, job_id: str) -> Lease:
    """Claim the queue's next job, which must be this one."""
    with database.write() as session:
        lease = jobs.claim(session, "runner", 3600, RetryRules())
    assert lease is not None and lease.job_id == job_id
    return lease


def study_of(database: Database, study_id: str) -> Study:
    """A study as it is stored."""
    with database.read() as session:
        return studies.get(session, study_id)
