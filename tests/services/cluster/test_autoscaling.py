"""What grows with Ray's own autoscaler, from nothing and back to nothing: the evaluator pool, and the cluster that a job waits for.

Added nodes are raylets on this machine; the autoscaler, its decisions and the evaluators are real.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import ray
import timm
import torch
from ray.util.placement_group import placement_group_table

from glora_core.backbones import adapted_layers
from glora_core.configs import encode
from glora_core.evaluation import SubnetScorer
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import SearchSpace
from glora_core.training import TrainingSettings
from services.cluster.evaluator import evaluators
from services.cluster.joining import join_ray
from services.cluster.pool import EvaluatorPool
from services.cluster.resources import ClusterUnavailable, EvaluatorLimit, ResourcesUnavailable, Share, wait_for
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE
from tests.chaos import census
from tests.glora_core.conftest import make_toy_split
from tests.servers.autoscaling import AutoscalingRay
from tests.servers.driving import driving

pytestmark = pytest.mark.slow

NODES = 2
IDLE_SECONDS = 2.0
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[AutoscalingRay]:
    """A head without CPUs, which this process joins as a runner does, and nodes of one CPU each as they are asked for."""
    with tempfile.TemporaryDirectory(prefix="ray-") as root:  # Ray's sockets want a short path
        running = AutoscalingRay(Path(root), {"CPU": 1}, NODES, IDLE_SECONDS)
        running.start()
        try:
            with driving(__name__):
                _until(lambda: _joined(running.address))
                yield running
        finally:
            running.stop()
            _until(lambda: not census.alive(Path(root)), 10)


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    """Every test begins with the head alone, and leaves nothing that would keep a node."""
    _until(lambda: _cpus() == 0)
    yield
    _until(lambda: _cpus() == 0)


@pytest.fixture(scope="module")
def toy() -> tuple[Workload, TrainingSettings, dict[str, torch.Tensor], list[Any]]:
    """A workload, how its supernet is trained, that supernet's state, and some subnets of it."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2).eval()
    workload = Workload(model, SearchSpace(adapted_layers(model)), make_toy_split(30), make_toy_split(12), "accuracy")
    settings, rng, sampler = TrainingSettings(), stream(0), FeasibleSampler(workload.space, 700)
    state = {name: torch.randn_like(tensor) * 0.1 for name, tensor in workload.supernet(settings).trainable_state().items()}
    return workload, settings, state, [sampler.sample(rng) for _ in range(12)]


def _joined(address: str) -> bool:
    try:
        join_ray(address)
    except ClusterUnavailable:
        return False
    return True


def _cpus() -> float:
    return float(ray.cluster_resources().get("CPU", 0.0))


def _waiting() -> int:
    """Requests for room for several processes that still stand."""
    return sum(row["state"] != "REMOVED" for row in placement_group_table().values())


def _until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_pool_grows_node_by_node_to_its_limit_and_the_nodes_go_when_they_are_given_back(toy: Any) -> None:
    workload, settings, state, configs = toy
    settle(Share())
    scorer = SubnetScorer(workload.supernet(settings, state), deepcopy(workload.plain))
    expected = [scorer.score(config, workload.val, BATCH_SIZE) for config in configs]
    start = evaluators(ray.put(workload.for_evaluation()), ray.put(state), settings, Share())
    most, most_by_cluster = [9], EvaluatorLimit(0, Share(), lambda: 1)
    assert most_by_cluster() == 1, "one that waits, for which there is no room yet"
    pool = EvaluatorPool(start, lambda: min(most[0], most_by_cluster()))
    codes = [encode(config) for config in configs]

    def scored_by(count: int) -> bool:
        assert pool.score(codes) == expected
        return len(pool.pids()) == count

    _until(lambda: scored_by(NODES))
    assert _cpus() == NODES
    assert most_by_cluster() == NODES + 1, "another waits, in vain"

    most[0] = 1
    _until(lambda: scored_by(1))
    _until(lambda: _cpus() == 1)
    assert scored_by(1)

    pool.close()
    _until(lambda: _cpus() == 0)


def test_job_waits_for_nodes_by_asking_for_them_and_then_holds_nothing() -> None:
    wait_for(NODES, Share(), PATIENCE_SECONDS)

    assert _cpus() == NODES
    assert _waiting() == 0


def test_job_that_the_grown_cluster_cannot_hold_either_stops_asking() -> None:
    with pytest.raises(ResourcesUnavailable, match=r"1 training worker with 2 CPUs each"):
        wait_for(1, Share(2.0), 3.0)

    assert _waiting() == 0


def test_jobs_side_by_side_make_the_cluster_grow_beyond_their_shares_of_it(toy: Any) -> None:
    workload, settings, state, configs = toy
    start = evaluators(ray.put(workload.for_evaluation()), ray.put(state), settings, Share())
    limit = EvaluatorLimit(0, Share(), lambda: 2)
    pool = EvaluatorPool(start, limit)
    codes = [encode(config) for config in configs]

    _until(lambda: len(pool.score(codes)) == len(codes) and _cpus() == NODES)

    assert limit() == 1 == len(pool.pids())
    pool.close()
    limit.close()
