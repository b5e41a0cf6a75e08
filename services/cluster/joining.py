"""Becoming a driver of a Ray cluster: what a job's runner and a study's driver do alike."""

import logging

import ray
from ray.exceptions import RayError

from services.cluster.resources import ClusterUnavailable


def join_ray(address: str) -> None:
    """Become a driver of the cluster at an address; a head on loopback wants its drivers there too. Raises ClusterUnavailable."""
    local = {"_node_ip_address": "127.0.0.1"} if address.startswith("127.0.0.1:") else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **local)
    except (ConnectionError, TimeoutError, RayError) as error:
        raise ClusterUnavailable(f"no Ray cluster answers at {address}: {error}") from error
