"""What a cluster has, and whether a job can fit at all. A job that never fits would otherwise wait in silence."""

import ray


class ResourcesUnavailable(RuntimeError):
    """The cluster has less than the job asks for; the message says both."""


def check(workers: int, use_gpu: bool) -> None:
    """Return if the cluster can hold the training workers.

    Raises:
        ResourcesUnavailable: it has fewer CPUs (or GPUs) than workers.
    """
    kind = "GPU" if use_gpu else "CPU"
    available = int(ray.cluster_resources().get(kind, 0))
    if available < workers:
        raise ResourcesUnavailable(
            f"the job asks for {workers} training workers with one {kind} each, and the cluster has {available} {kind}s"
        )


def pool_size(asked: int, use_gpu: bool) -> int:
    """The number of evaluators: what was asked for (0: as many as fit), but no more than the cluster has CPUs (or GPUs)."""
    available = int(ray.cluster_resources().get("GPU" if use_gpu else "CPU", 0))
    return max(1, min(asked or available, available))
