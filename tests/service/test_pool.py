"""Evaluators on real Ray: they measure in the precision that they are asked for, as this process would."""

from collections.abc import Iterator

import pytest
import ray
import timm
import torch

from glora_core.backbones import adapted_layers
from glora_core.configs import decode, encode
from glora_core.evaluation import SubnetScorer
from glora_core.precision import Precision
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import SearchSpace
from glora_core.training import Trainer, TrainingSettings
from services.cluster.evaluator import evaluators
from services.cluster.pool import EvaluatorPool
from services.cluster.resources import Share
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE
from tests.glora_core.conftest import make_toy_split

pytestmark = pytest.mark.slow
SETTINGS = TrainingSettings(epochs=3, batch_size=10, learning_rate=0.01)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def workload() -> Workload:
    """A tiny ViT over images whose colour tells their class."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2).eval()
    return Workload(model, SearchSpace(adapted_layers(model)), make_toy_split(30), make_toy_split(12), "accuracy")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_pool_scores_in_its_precision_what_this_process_scores(cluster: None, workload: Workload, precision: Precision) -> None:
    settle(Share())
    supernet = workload.supernet(SETTINGS)
    Trainer(supernet, workload.train, SETTINGS).fit()
    sampler = FeasibleSampler(workload.space, workload.space.maximum)
    codes = [encode(sampler.sample(stream(0, i))) for i in range(5)]

    pool = EvaluatorPool(evaluators(ray.put(workload), ray.put(supernet.trainable_state()), SETTINGS, Share(), precision), lambda: 1)
    try:
        found = pool.score(codes)
    finally:
        pool.close()

    expected = [SubnetScorer(supernet, precision=precision).score(decode(code), workload.val, BATCH_SIZE) for code in codes]
    assert found == expected
    other = SubnetScorer(supernet, precision="bfloat16" if precision == "float32" else "float32")
    assert found[0].loss != other.score(decode(codes[0]), workload.val, BATCH_SIZE).loss
