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
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import ray
import torch
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError
from ray.exceptions import RayActorError, RayError, WorkerCrashedError
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from glora_core.backbones import BackboneInfo
from glora_core.errors import (
    BackboneUnknown,
    BackboneUnsupported,
    BudgetInfeasible,
    ConfigInvalid,
    DataInvalid,
    Diverged,
    ExportMismatch,
    NotLearning,
)
from services.cluster import resources
from services.cluster.pool import WorkerLost
from services.cluster.resources import ResourcesUnavailable, Share
from services.cluster.workload import settle
from services.job_request import JobRequest
from services.scheduler.context import RunContext
from services.scheduler.evaluating import open_pool
from services.scheduler.exits import LOST, OVER, RETRY, STOPPED
from services.scheduler.exporting import export
from services.scheduler.finals import finals
from services.scheduler.prepare import prepare
from services.scheduler.searching import search
from services.scheduler.supernets import InputsChanged, train_or_find
from services.settings import Settings, get_settings
from services.store import jobs
from services.store.blobs import BlobMissing, BlobStore, StoreUnavailable
from services.store.database import Database
from services.store.errors import LeaseLost
from services.store.jobs import Lease
from services.store.models import Backbone

log = logging.getLogger("glora.runner")

_REASONS: tuple[tuple[tuple[type[BaseException], ...], str, bool], ...] = (
    ((DataInvalid,), "data_invalid", False),
    ((BackboneUnknown, BackboneUnsupported), "backbone_unavailable", False),
    ((InputsChanged, ConfigInvalid), "inputs_changed", False),
    ((BudgetInfeasible,), "budget_infeasible", False),
    ((Diverged,), "diverged", False),
    ((NotLearning,), "not_learning", False),
    ((ResourcesUnavailable,), "resources_unavailable", False),
    ((ExportMismatch,), "export_mismatch", False),
    ((BlobMissing, StoreUnavailable), "artifact_unavailable", True),
    ((torch.OutOfMemoryError, MemoryError, RayOutOfMemoryError), "out_of_memory", False),
    ((WorkerLost, RayActorError, WorkerCrashedError), "worker_lost", True),
    ((OperationalError, InterfaceError), "database_unavailable", True),
    ((RayError,), "worker_lost", True),
)
"""Typed reason of a failure by exception, and whether another attempt may help."""


def run_job(context: RunContext) -> None:
    """All phases of a job, in order; each finds what an earlier attempt has stored."""
    context.enter("prepare")
    resources.wait_for(context.request.training.workers, context.worker_share, context.settings.resources_seconds)
    prepared = prepare(context)
    context.enter("train")
    key, state = train_or_find(context, prepared.workload, prepared.weights_hash)
    context.enter("search")
    pool = open_pool(context, prepared, state)
    try:
        ranked = search(context, key, pool)
    finally:
        pool.close()
    context.enter("finals")
    outcome = finals(context, prepared, ranked, key)
    context.enter("export")
    export(context, prepared, outcome)


def classify(error: BaseException) -> tuple[str, bool]:
    """The typed reason of a failure, and whether another attempt may help: of the first of its causes that has one."""
    for cause in _causes(error):
        for kinds, reason, retry in _REASONS:
            if isinstance(cause, kinds):
                return reason, retry
    return "internal_error", False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what lies behind it: causes of Python, of Ray's tasks, and failures of Ray Train's workers; innermost first."""
    if error is None:
        return
    named = (getattr(error, name, None) for name in ("cause", "health_check_failure", "_base_exc"))
    for behind in (*named, error.__cause__, *getattr(error, "worker_failures", {}).values()):
        if isinstance(behind, BaseException):
            yield from _causes(behind)
    yield error


def attempt(settings: Settings, database: Database, lease: Lease, workdir: Path) -> int:
    """Run a job under a lease; returns the exit status."""
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        signal.signal(signal.SIGTERM, _stop)
        context = open_context(settings, database, lease, workdir)
        join_ray(settings.ray_address)
        signal.signal(signal.SIGTERM, _stop)  # joining Ray has put a handler of its own there
        settle(Share())
        run_job(context)
        return OVER
    except LeaseLost as error:
        log.warning("%s", error)
        return LOST
    except Exception as error:
        log.exception("job %s failed", lease.job_id)
        return record_failure(settings, database, lease, error)


def join_ray(address: str) -> None:
    """Become a driver of the cluster at an address; a head on loopback wants its drivers there too."""
    local = {"_node_ip_address": "127.0.0.1"} if address.startswith("127.0.0.1:") else {}
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **local)


def open_context(settings: Settings, database: Database, lease: Lease, workdir: Path) -> RunContext:
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
        )


def record_failure(settings: Settings, database: Database, lease: Lease, error: BaseException) -> int:
    """Requeue the job if another attempt may help and is left, else fail it with its reason; returns the exit status."""
    reason, retry = classify(error)
    detail = "".join(traceback.format_exception(error))[-20_000:]
    try:
        with jobs.fenced(database, lease) as (session, job):
            job.attempts += 1
            if retry and job.attempts < settings.max_attempts:
                jobs.release(session, job)
                return RETRY
            jobs.fail(session, job, reason, _headline(error), detail)
    except LeaseLost:
        return LOST
    return OVER


def _headline(error: BaseException) -> str:
    cause = next(_causes(error))
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return (lines[-1] if isinstance(cause, RayError) and lines else lines[0] if lines else type(cause).__name__)[:2000]


class Heartbeat(threading.Thread):
    """Renews the lease, and ends the process when the lease is lost or the job is cancelled.

    A second thread ends the process when the lease has run out, however long a renewal hangs in the database.
    """

    def __init__(self, settings: Settings, database: Database, lease: Lease) -> None:
        super().__init__(daemon=True, name="heartbeat")
        self._settings, self._database, self._lease = settings, database, lease
        self._renewed = time.monotonic()

    def run(self) -> None:
        """Beat until the process ends."""
        threading.Thread(target=self._watch, daemon=True, name="lease-watch").start()
        while True:
            asked = time.monotonic()
            try:
                if jobs.renew(self._database, self._lease, self._settings.lease_seconds):
                    self._cancel()
                self._renewed = asked
            except LeaseLost:
                os._exit(LOST)
            except SQLAlchemyError:
                log.warning("lease of %s not renewed", self._lease.job_id, exc_info=True)
            time.sleep(self._settings.heartbeat_seconds)

    def _watch(self) -> None:
        while time.monotonic() - self._renewed < self._settings.lease_seconds:
            time.sleep(self._settings.heartbeat_seconds)
        log.error("lease of %s ran out", self._lease.job_id)
        os._exit(LOST)

    def _cancel(self) -> None:
        with jobs.fenced(self._database, self._lease) as (session, job):
            jobs.cancelled(session, job)
        log.info("job %s cancelled", self._lease.job_id)
        os._exit(OVER)


def _stop(number: int, frame: FrameType | None) -> None:
    os._exit(STOPPED)


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
    heartbeat = Heartbeat(settings, database, lease)
    heartbeat.start()
    return attempt(settings, database, lease, arguments.workdir)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
