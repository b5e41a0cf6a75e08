"""What a cluster has, and whether a job can fit at all. A job that never fits would otherwise wait in silence."""

import time

import ray

_POLL_SECONDS = 0.5


class ClusterUnavailable(ConnectionError):
    """No Ray cluster answers at its address; worth another try."""


class ResourcesUnavailable(RuntimeError):
    """The cluster has less than the job asks for; the message says both."""


def wait_for(workers: int, use_gpu: bool, patience_seconds: float) -> None:
    """Return once the cluster can hold the training workers; nodes that are just joining are waited for.

    Raises:
        ResourcesUnavailable: after `patience_seconds` it still has fewer CPUs (or GPUs) than workers.
    """
    kind, deadline = "GPU" if use_gpu else "CPU", time.monotonic() + patience_seconds
    while (available := int(ray.cluster_resources().get(kind, 0))) < workers:
        if time.monotonic() > deadline:
            raise ResourcesUnavailable(
                f"the job asks for {workers} training workers with one {kind} each, and the cluster has {available} {kind}s"
            )
        time.sleep(_POLL_SECONDS)


def pool_size(asked: int, use_gpu: bool) -> int:
    """The number of evaluators: what was asked for (0: as many as fit), but no more than the cluster has CPUs (or GPUs)."""
    available = int(ray.cluster_resources().get("GPU" if use_gpu else "CPU", 0))
    return max(1, min(asked or available, available))
