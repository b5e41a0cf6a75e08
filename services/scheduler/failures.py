"""Why a job failed: the typed reason of an exception, and what to tell of it. Whether it is tried again is `store.retries`'s to say."""

import errno
import traceback
from collections.abc import Iterator

import torch
from botocore.exceptions import BotoCoreError
from ray.exceptions import LocalRayletDiedError, NodeDiedError, ObjectLostError, RayActorError, RayError, WorkerCrashedError
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

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
from services.cluster.pool import WorkerLost
from services.cluster.resources import ClusterUnavailable, ResourcesUnavailable
from services.scheduler.supernets import InputsChanged
from services.store.blobs import BlobMissing, StoreUnavailable

_MAX_DETAIL = 20_000
_MAX_HEADLINE = 2_000

_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((DataInvalid,), "data_invalid"),
    ((BackboneUnknown, BackboneUnsupported), "backbone_unavailable"),
    ((InputsChanged, ConfigInvalid), "inputs_changed"),
    ((BudgetInfeasible,), "budget_infeasible"),
    ((Diverged,), "diverged"),
    ((NotLearning,), "not_learning"),
    ((ResourcesUnavailable,), "resources_unavailable"),
    ((ClusterUnavailable, WorkerGroupStartupTimeoutError), "cluster_unavailable"),
    ((ExportMismatch,), "export_mismatch"),
    ((BlobMissing,), "artifact_missing"),
    ((StoreUnavailable, BotoCoreError), "artifact_unavailable"),
    ((torch.OutOfMemoryError, MemoryError, RayOutOfMemoryError), "out_of_memory"),
    ((NodeDiedError, LocalRayletDiedError, ObjectLostError), "node_lost"),
    ((WorkerLost, RayActorError, WorkerCrashedError), "worker_lost"),
    ((OperationalError, InterfaceError), "database_unavailable"),
    ((WorkerGroupStartupFailedError, WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError), "worker_lost"),
    ((RayError,), "worker_lost"),
)

_HICCUPS = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT})
"""Of a file system that is full or out of reach for a while; s3fs gives a store that is too busy EBUSY or EIO."""


_UNWRITTEN = ("No space left on device", "PytorchStreamWriter failed writing", ". unexpected pos ")
"""How safetensors and torch, which raise no OSError, say that a file could not be written."""


_BEHIND = ("cause", "controller_failure", "health_check_failure", "_base_exc")
"""Where errors of Ray keep what they are about."""


def classify(error: BaseException) -> str:
    """The typed reason of a failure: of the first of its causes, innermost first, that has one."""
    return next((reason for cause in _causes(error) if (reason := _reason(cause)) is not None), "internal_error")


def headline(error: BaseException) -> str:
    """What happened, in a line."""
    cause = next(_causes(error))
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return (lines[-1] if isinstance(cause, RayError) and lines else lines[0] if lines else type(cause).__name__)[:_MAX_HEADLINE]


def detail(error: BaseException) -> str:
    """The end of the traceback."""
    return "".join(traceback.format_exception(error))[-_MAX_DETAIL:]


def _reason(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in _HICCUPS:
        return "artifact_unavailable"
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "database_unavailable"
    if any(words in str(error) for words in _UNWRITTEN):
        return "artifact_unavailable"
    return next((reason for kinds, reason in _REASONS if isinstance(error, kinds)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what lies behind it: causes of Python, of Ray's tasks, and failures of Ray Train's parts; innermost first."""
    if error is None:
        return
    named = (getattr(error, name, None) for name in _BEHIND)
    for behind in (*named, error.__cause__, *getattr(error, "worker_failures", {}).values()):
        if isinstance(behind, BaseException):
            yield from _causes(behind)
    yield error
