"""Typed reasons of failures, and what a runner does about them."""

import errno
from pathlib import Path

import psycopg
import pytest
import torch
from botocore.exceptions import EndpointConnectionError
from ray.exceptions import ActorDiedError, NodeDiedError, ObjectLostError, RayTaskError
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckTimeoutError,
)
from safetensors import SafetensorError
from sqlalchemy.exc import OperationalError

from glora_core.errors import BudgetInfeasible, DataInvalid, Diverged, NotLearning
from services.cluster.pool import WorkerLost
from services.cluster.resources import ClusterUnavailable, ResourcesUnavailable
from services.scheduler.exits import LOST, OVER, RETRY
from services.scheduler.failures import classify, detail, headline
from services.scheduler.runner import record_failure
from services.settings import Settings
from services.store.blobs import BlobMissing, StoreUnavailable
from services.store.database import Database
from services.store.retries import RetryRules
from tests.services.api import stock
from tests.services.store.rows import change_job, job_of


def _caused(outer: BaseException, by: BaseException) -> BaseException:
    outer.__cause__ = by
    return outer


CASES = [
    (DataInvalid("image 'x.png' cannot be decoded"), "data_invalid", False),
    (Diverged("training loss became nan"), "diverged", False),
    (NotLearning("no better than guessing"), "not_learning", False),
    (BudgetInfeasible(1, 2, 3), "budget_infeasible", False),
    (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", False),
    (MemoryError(), "out_of_memory", False),
    (ResourcesUnavailable("8 workers, 2 CPUs"), "resources_unavailable", False),
    (ZeroDivisionError("a mistake of ours"), "internal_error", False),
    (FileNotFoundError(errno.ENOENT, "gone"), "internal_error", False),
    (WorkerLost("a batch lost its evaluator"), "worker_lost", True),
    (ActorDiedError(), "worker_lost", True),
    (NodeDiedError("the node died"), "node_lost", True),
    (ObjectLostError("00" * 28, b"", "f"), "node_lost", True),
    (ClusterUnavailable("no Ray cluster answers"), "cluster_unavailable", True),
    (BlobMissing("not in the store"), "artifact_missing", True),
    (StoreUnavailable("out of reach"), "artifact_unavailable", True),
    (OSError(errno.ENOSPC, "No space left on device"), "artifact_unavailable", True),
    (OSError(errno.EBUSY, "SlowDown"), "artifact_unavailable", True),
    (EndpointConnectionError(endpoint_url="http://objects"), "artifact_unavailable", True),
    (_caused(RuntimeError("upload failed"), by=EndpointConnectionError(endpoint_url="http://objects")), "artifact_unavailable", True),
    (SafetensorError("I/O error: No space left on device (os error 28)"), "artifact_unavailable", True),
    (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "artifact_unavailable", True),
    (RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed"), "artifact_unavailable", True),
    (OperationalError("SELECT 1", {}, psycopg.OperationalError("the connection is lost")), "database_unavailable", True),
    (_caused(RuntimeError("training failed"), by=MemoryError()), "out_of_memory", False),
    (_caused(DataInvalid("cannot be read"), by=OSError(errno.EIO, "I/O error")), "artifact_unavailable", True),
    (RayTaskError("f", "Traceback", Diverged("nan")), "diverged", False),
    (ControllerError(WorkerGroupStartupTimeoutError(2)), "cluster_unavailable", True),
    (ControllerError(WorkerGroupStartupFailedError("a node died")), "worker_lost", True),
    (ControllerError(WorkerHealthCheckTimeoutError("a worker hangs")), "worker_lost", True),
    (ControllerError(EndpointConnectionError(endpoint_url="http://objects")), "artifact_unavailable", True),
]


@pytest.mark.parametrize(
    ("error", "reason", "again"), CASES, ids=[f"{type(error).__name__}-{reason}-{place}" for place, (error, reason, _) in enumerate(CASES)]
)
def test_failure_has_a_typed_reason_that_is_tried_again_or_not(error: BaseException, reason: str, again: bool) -> None:
    assert classify(error) == reason
    assert (RetryRules().allowed(reason) > 1) == again


def test_headline_is_a_line_and_detail_the_end_of_the_traceback() -> None:
    error = DataInvalid("first line\nsecond line" + "x" * 50_000)

    assert headline(error) == "first line"
    assert len(detail(error)) == 20_000
    assert headline(MemoryError()) == "MemoryError"


SETTINGS = Settings(heartbeat_seconds=0.01)


def test_runner_lets_a_job_wait_for_what_may_pass(database: Database) -> None:
    lease = stock.add_running(database)

    assert record_failure(SETTINGS, database, lease, WorkerLost("gone")) == RETRY

    job = job_of(database, lease.job_id)
    told = {"reason": "worker_lost", "message": "gone", "attempt": 2, "of": 3}
    assert (job.state, job.retry) == ("queued", told | {"counts": {"lost": 1}})


def test_runner_fails_a_job_for_good_with_its_traceback(database: Database) -> None:
    lease = stock.add_running(database)

    assert record_failure(SETTINGS, database, lease, Diverged("nan")) == OVER

    job = job_of(database, lease.job_id)
    assert (job.state, job.failure_reason, job.failure_message) == ("failed", "diverged", "nan")
    assert job.failure_detail is not None and "Diverged: nan" in job.failure_detail


def test_runner_that_lost_its_job_fails_nothing(database: Database) -> None:
    lease = stock.add_running(database)
    change_job(database, lease.job_id, lease_epoch=2)

    assert record_failure(SETTINGS, database, lease, Diverged("nan")) == LOST
    assert job_of(database, lease.job_id).state == "running"


def test_failure_is_stored_once_the_database_is_back(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lease, cuts = stock.add_running(database), [True, True]
    write = database.write

    def cut_off(self: Database) -> object:
        if cuts:
            cuts.pop()
            raise OperationalError("SELECT 1", {}, psycopg.OperationalError("the connection is lost"))
        return write()

    monkeypatch.setattr(Database, "write", cut_off)

    assert record_failure(SETTINGS, database, lease, StoreUnavailable("out of reach")) == RETRY
    assert cuts == []
