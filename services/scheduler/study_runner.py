"""The driver of one study: its only Ray driver, in a process of its own, which submits the trials' jobs and follows them.

Started by a scheduler as `python -m services.scheduler.study_runner STUDY OWNER EPOCH WORKDIR`. It counts against no bound on running
jobs, since it would hold the place that its own jobs wait for. It ends when the study is over, or its lease is lost, by a
cancellation for example. Ray is loaded once the lease is being renewed.
"""

import argparse
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from services.job_request import JobRequest
from services.scheduler.exits import LOST, OVER, RETRY
from services.scheduler.leased import Heartbeat, stop, until_stored
from services.settings import Settings, get_settings
from services.store import studies, study_leases, study_progress
from services.store.database import Database
from services.store.errors import LeaseLost
from services.store.queue import Quotas
from services.store.retries import RetryRules
from services.store.study_leases import StudyLease
from services.study_request import StudyRequest

log = logging.getLogger("glora.study")


def drive(settings: Settings, database: Database, lease: StudyLease, workdir: Path) -> None:
    """Run all trials of a study that are not over, and conclude it. Raises LeaseLost, or what Ray raises."""
    from services.cluster import presence, pulse
    from services.cluster.early_stopping import Halving
    from services.cluster.joining import join_ray
    from services.cluster.sweeping import Sweep, insist, run_trials

    with database.read() as session:
        request = StudyRequest.model_validate(studies.get(session, lease.study_id).request)
        numbers = study_progress.unfinished(session, lease.study_id)
        told = study_progress.reports(session, lease.study_id)
        first = studies.trials(session, lease.study_id)[0]
    if numbers:
        join_ray(settings.ray_address)
        signal.signal(signal.SIGTERM, stop)  # joining Ray has put a handler of its own there
        presence.watch(presence.local_socket(), lambda: _lose_node(settings, database, lease))
        early, epochs = request.early_stop, JobRequest.model_validate(first.request).training.epochs
        with pulse.watched(settings.hung_seconds):
            run_trials(
                Sweep(database.url, lease, Quotas.of(settings), settings.poll_seconds),
                numbers,
                concurrency=min(request.concurrency, settings.max_study_trials),
                halving=Halving(early.grace_epochs, early.reduction_factor, epochs) if early.rule == "asha" else None,
                told=told,
                folder=workdir,
            )
    while not insist(lambda: _concluded(database, lease)):
        time.sleep(settings.poll_seconds)


def attempt(settings: Settings, database: Database, lease: StudyLease, workdir: Path) -> int:
    """Drive a study under a lease until it is over; returns the exit status."""
    workdir.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(workdir)  # what Ray unpacks here goes with the folder, however this process ends
    try:
        drive(settings, database, lease, workdir)
        return OVER
    except LeaseLost as error:
        log.warning("%s", error)
        return LOST
    except Exception as error:
        log.exception("study %s failed", lease.study_id)
        return record_failure(settings, database, lease, error)


def record_failure(settings: Settings, database: Database, lease: StudyLease, error: BaseException) -> int:
    """Let the study wait for another attempt, or fail it if none is left; returns the exit status."""

    def store() -> int:
        with study_leases.fenced(database, lease) as (session, study):
            study_leases.attempt_failed(session, study, RetryRules.of(settings), reason_of(error), str(error)[-2000:])
        return RETRY

    return until_stored(settings, lease.study_id, store)


def reason_of(error: BaseException) -> str:
    """The typed reason of a driver's failure: whatever Ray raises may pass, and so may a database that is out of reach."""
    if isinstance(error, ConnectionError):  # ClusterUnavailable is one
        return "cluster_unavailable"
    if isinstance(error, SQLAlchemyError):
        return "database_unavailable"
    return "worker_lost" if type(error).__module__.startswith("ray.") else "internal_error"


def _concluded(database: Database, lease: StudyLease) -> bool:
    with study_leases.fenced(database, lease) as (session, study):
        return study_progress.conclude(session, study)


def _lose_node(settings: Settings, database: Database, lease: StudyLease) -> None:
    """End the process with the Ray node that it had joined, from any thread."""
    log.error("study %s: the Ray node of its driver is gone", lease.study_id)
    os._exit(record_failure(settings, database, lease, ConnectionError("the Ray node that the driver had joined is gone")))


def main() -> int:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Drives one claimed study; started by a scheduler.")
    parser.add_argument("study")
    parser.add_argument("owner")
    parser.add_argument("epoch", type=int)
    parser.add_argument("workdir", type=Path)
    arguments = parser.parse_args()
    settings = get_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, stop)
    database = Database(settings.resolved_database_url)
    lease = StudyLease(arguments.study, arguments.owner, arguments.epoch)
    Heartbeat(settings, lease.study_id, lambda: study_leases.renew(database, lease, settings.lease_seconds)).start()
    return attempt(settings, database, lease, arguments.workdir)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
