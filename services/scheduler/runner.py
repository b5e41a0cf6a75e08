"""The runner of one job: its only Ray driver, from claim to result, in a process of its own.

Started by a scheduler as `python -m services.scheduler.runner JOB OWNER EPOCH WORKDIR`. A heartbeat thread renews the
lease; when the lease is lost, or a cancellation is asked for, the process ends at once, and Ray frees all that it held.
The work folder is the scheduler's to remove, since a runner may end anywhere.
"""

import argparse
import logging
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

from glora_core.backbones import BackboneInfo
from services.cluster import presence, pulse, resources
from services.cluster.joining import join_ray
from services.cluster.pausing import Paused
from services.cluster.resources import ClusterUnavailable, Share
from services.cluster.workload import settle
from services.job_request import JobRequest
from services.scheduler.context import RunContext
from services.scheduler.evaluators import open_pool
from services.scheduler.exits import LOST, OVER, RETRY
from services.scheduler.expecting import Estimate
from services.scheduler.exporting import export
from services.scheduler.failures import classify, detail, headline
from services.scheduler.finals import finals
from services.scheduler.leased import Heartbeat, stop, until_stored
from services.scheduler.prepare import prepare
from services.scheduler.retraining import retrain
from services.scheduler.room import Room
from services.scheduler.searching import search
from services.scheduler.supernets import train_or_find
from services.scheduler.turns import GaveWay
from services.settings import Settings, get_settings
from services.store import jobs, lifecycle, lineage
from services.store.blobs import BlobStore
from services.store.database import Database
from services.store.errors import LeaseLost
from services.store.jobs import Lease
from services.store.models import Backbone
from services.store.retries import RetryRules

log = logging.getLogger("glora.runner")


def run_job(context: RunContext) -> None:
    """All phases of a job, in order; each finds what an earlier attempt has stored."""
    context.enter("prepare")
    patience = context.settings.resources_seconds
    for name, share, count in (
        ("training worker", context.worker_share, context.request.training.workers),
        ("evaluator", context.evaluator_share, 1),
    ):
        with context.wanting(name, share, count):
            resources.wait_for(count, share, patience, name)
    prepared = prepare(context)
    estimate = Estimate(context, prepared)
    context.enter("train")
    with estimate.phase("supernet"):
        key, state = train_or_find(context, prepared.workload, prepared.weights_hash)
    context.enter("search")
    with estimate.phase("search"), open_pool(context, prepared, state) as pool:
        ranked = search(context, key, pool, prepared.local.second.key if prepared.local.second else None)
    context.enter("finals")
    with estimate.phase("finals"):
        outcome = retrain(context, prepared, finals(context, prepared, ranked, key), key)
    context.enter("export")
    export(context, prepared, outcome)


def attempt(settings: Settings, database: Database, lease: Lease, workdir: Path, pausing: threading.Event) -> int:
    """Run a job under a lease until it is over, or paused when `pausing` is set; returns the exit status."""
    workdir.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(workdir)  # what Ray unpacks here goes with the folder, however this process ends
    try:
        signal.signal(signal.SIGTERM, stop)
        context = open_context(settings, database, lease, workdir, pausing)
        join_ray(settings.ray_address)
        signal.signal(signal.SIGTERM, stop)  # joining Ray has put a handler of its own there
        presence.watch(presence.local_socket(), lambda: _lose_node(settings, database, lease))
        settle(Share())
        with pulse.watched(settings.hung_seconds, Room(context)):
            run_job(context)
        return OVER
    except Paused:
        return record_pause(database, lease)
    except GaveWay as given:
        log.info("%s", given)
        return OVER
    except LeaseLost as error:
        log.warning("%s", error)
        return LOST
    except Exception as error:
        log.exception("job %s failed", lease.job_id)
        return record_failure(settings, database, lease, error)


def record_pause(database: Database, lease: Lease) -> int:
    """Note that the job has paused, or what was asked for meanwhile: a cancellation, or to go on; returns the exit status."""
    try:
        with jobs.fenced(database, lease) as (session, job):
            jobs.stopped(session, job)
    except LeaseLost:
        return LOST
    return OVER


def open_context(settings: Settings, database: Database, lease: Lease, workdir: Path, pausing: threading.Event) -> RunContext:
    """The context of a claimed job, from its row."""
    with database.read() as session:
        job = jobs.get(session, lease.job_id)
        backbone = session.get_one(Backbone, job.backbone_key)
        assert backbone.info is not None
        return RunContext(
            settings=settings,
            database=database,
            blobs=BlobStore(settings.resolved_artifacts_url, settings.artifacts_endpoint),
            lease=lease,
            request=JobRequest.model_validate(job.request),
            info=BackboneInfo.from_dict(backbone.info),
            data_facts=job.data,
            workdir=workdir,
            pausing=pausing,
            origin=lineage.origin_of(job),
        )


def record_failure(settings: Settings, database: Database, lease: Lease, error: BaseException) -> int:
    """Let the job wait for another attempt if that may help and one is left, else fail it with its reason; returns the exit status.

    A database that is out of reach is waited for, as long as the lease lasts.
    """
    told = RetryRules.of(settings), classify(error), headline(error), detail(error)

    def store() -> int:
        with jobs.fenced(database, lease) as (session, job):
            return RETRY if jobs.attempt_failed(session, job, *told) else OVER

    return until_stored(settings, lease.job_id, store)


def keep(settings: Settings, database: Database, lease: Lease) -> threading.Event:
    """Renew the lease from now on, and end the process when the job is cancelled; the event is set while a pause is asked for."""
    pausing = threading.Event()

    def renew() -> None:
        if jobs.renew(database, lease, settings.lease_seconds):
            _cancel(database, lease)

    def heed_pause() -> None:
        if lifecycle.pause_requested(database, lease.job_id):
            pausing.set()
        else:
            pausing.clear()

    Heartbeat(settings, lease.job_id, renew, heed_pause).start()
    return pausing


def _cancel(database: Database, lease: Lease) -> None:
    with jobs.fenced(database, lease) as (session, job):
        jobs.cancelled(session, job)
    log.info("job %s cancelled", lease.job_id)
    os._exit(OVER)


def _lose_node(settings: Settings, database: Database, lease: Lease) -> None:
    """End the process with the Ray node that it had joined, from any thread."""
    log.error("job %s: the Ray node of its runner is gone", lease.job_id)
    os._exit(record_failure(settings, database, lease, ClusterUnavailable("the Ray node that the runner had joined is gone")))


def main() -> int:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Runs one claimed job; started by a scheduler.")
    parser.add_argument("job")
    parser.add_argument("owner")
    parser.add_argument("epoch", type=int)
    parser.add_argument("workdir", type=Path)
    arguments = parser.parse_args()
    settings = get_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    database = Database(settings.resolved_database_url)
    lease = Lease(arguments.job, arguments.owner, arguments.epoch)
    return attempt(settings, database, lease, arguments.workdir, keep(settings, database, lease))


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
