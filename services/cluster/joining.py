"""Becoming a driver of a Ray cluster: what a job's runner and a study's driver do alike."""

import logging
from typing import Any

import ray
from ray.exceptions import RayError

from services.cluster.resources import ClusterUnavailable
from services.cluster.worker_forks import worker_command


def join_ray(address: str) -> None:
    """Become a driver of the cluster at an address. Raises ClusterUnavailable.

    A head on loopback wants its drivers there too, and has no other machine's nodes, so workers can be forked.
    """
    local: dict[str, Any] = {}
    if address.startswith("127.0.0.1:"):
        forked = worker_command()
        local = {"_node_ip_address": "127.0.0.1", **({"runtime_env": {"py_executable": forked}} if forked else {})}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **local)
    except (ConnectionError, TimeoutError, RayError) as error:
        raise ClusterUnavailable(f"no Ray cluster answers at {address}: {error}") from error
