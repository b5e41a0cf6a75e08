"""What a cluster has, what a job's processes hold of it, and whether a job can fit at all; one that never fits would wait in silence."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import available_resources_per_node

from services.cluster.demand import Growth, asked_for

_POLL_SECONDS = 0.5
MOST_EVALUATORS = 1024


class ClusterUnavailable(ConnectionError):
    """No Ray cluster answers at its address; worth another try."""


class ResourcesUnavailable(RuntimeError):
    """The cluster has less than the job asks for; the message says both."""


@dataclass(frozen=True)
class Share:
    """What one process holds of the cluster: CPUs and GPUs, whole ones or fractions."""

    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def use_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self.gpus > 0

    def options(self) -> dict[str, Any]:
        """As options of a Ray actor or task."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}

    def bundle(self) -> dict[str, float]:
        """As a bundle of Ray Train and Ray Tune."""
        return {name: amount for name, amount in (("CPU", self.cpus), ("GPU", self.gpus)) if amount}

    def fitting(self, node: Mapping[str, float]) -> int:
        """How many processes have room on a node that has so much."""
        return math.floor(self.times(node) + 1e-9)

    def times(self, node: Mapping[str, float]) -> float:
        """How often a node has what one process holds."""
        return min(node.get(name, 0.0) / amount for name, amount in self.bundle().items())

    def __str__(self) -> str:
        return " and ".join(f"{amount:g} {name}{'s' if amount > 1 else ''}" for name, amount in self.bundle().items())


def wait_for(count: int, share: Share, patience_seconds: float, name: str = "training worker") -> None:
    """Return once the cluster's nodes can hold so many processes of a name; nodes are asked for, and those just joining waited for.

    Raises:
        ResourcesUnavailable: after `patience_seconds` it still has less than they ask for.
    """
    if _fitting(share) >= count:
        return
    deadline = time.monotonic() + patience_seconds
    with asked_for(count, share.bundle()):
        while _fitting(share) < count:
            if time.monotonic() > deadline:
                raise ResourcesUnavailable(_too_little(count, share, name))
            time.sleep(_POLL_SECONDS)


def no_room(count: int, share: Share, name: str) -> str | None:
    """What so many processes of a name find no room for just now, though the cluster may be large enough; None if there is room."""
    free = list(available_resources_per_node().values())
    if sum(share.fitting(node) for node in free) >= count:
        return None
    left = " and ".join(f"{sum(node.get(each, 0.0) for node in free):g} {each}s" for each in share.bundle())
    return f"{_asked(count, share, name)}, and {left} of the cluster are free"


def _asked(count: int, share: Share, name: str) -> str:
    return f"the job asks for {count} {name}{'s' if count > 1 else ''} with {share} each"


def _too_little(count: int, share: Share, name: str) -> str:
    def has(amounts: Callable[[str], float]) -> str:
        return " and ".join(f"{amounts(each):g} {each}s" for each in share.bundle())

    nodes = _nodes()
    largest = max(nodes, key=share.times, default={})
    whole = has(lambda each: sum(node.get(each, 0.0) for node in nodes))
    return f"{_asked(count, share, name)}, and the cluster has {whole}, its largest node {has(lambda each: largest.get(each, 0.0))}"


def _fitting(share: Share) -> int:
    """How many processes the cluster has room for: each is on one node."""
    return sum(share.fitting(node) for node in _nodes())


def _nodes() -> list[dict[str, float]]:
    """What each node that is alive has in all."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def pool_size(asked: int, share: Share) -> int:
    """How many processes compute at once for a job that is alone: what was asked for (0: as many as fit), but no more than fit."""
    fitting = _fitting(share)
    return max(1, min(asked or fitting, fitting))


class EvaluatorLimit:
    """How many evaluators a job may have now, for its pool to ask again and again.

    A job that is alone has what it asked for, and where that is 0, one more than fit: the one that waits takes the next free place,
    and is what makes an autoscaler add a node. Jobs that run side by side share the cluster evenly; none of their evaluators waits,
    since it would take a place that is another job's, so what makes the cluster grow is asked for apart from them.

    Args:
        asked: evaluators by the job's request.
        share: of the cluster, that each of them holds.
        jobs_running: how many jobs share the cluster, this one counted.
        quota: how many its user leaves it; None: any number.
    """

    def __init__(self, asked: int, share: Share, jobs_running: Callable[[], int], quota: Callable[[], int | None] = lambda: None) -> None:
        self._asked, self._share = asked, share
        self._jobs_running, self._quota = jobs_running, quota
        self._growth = Growth(share.options())

    def __call__(self) -> int:
        """The number as of now."""
        fitting, running, quota = _fitting(self._share), self._jobs_running(), self._quota()
        most = MOST_EVALUATORS if quota is None else quota
        wanted = min(self._asked or fitting + 1, most)
        even = wanted if running <= 1 else max(1, min(wanted, fitting // running))
        if even < wanted:
            self._growth.ask()
        else:
            self._growth.rest()
        return even

    def close(self) -> None:
        """Ask for no more room."""
        self._growth.rest()
