"""The evaluator pool on real Ray: same scores in the same order, whoever dies, hangs, is late, comes or goes."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import ray
import timm
import torch

from glora_core.backbones import adapted_layers
from glora_core.configs import encode
from glora_core.evaluation import Score, SubnetScorer
from glora_core.precision import Precision
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import SearchSpace
from glora_core.training import Trainer, TrainingSettings
from services.cluster import demand, pace
from services.cluster.evaluator import evaluators
from services.cluster.pool import EvaluatorPool, WorkerLost
from services.cluster.resources import EvaluatorLimit, ResourcesUnavailable, Share, wait_for
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE
from tests.glora_core.conftest import make_toy_split
from tests.servers.driving import local_ray
from tests.servers.waiting import until
from tests.services.cluster.troubled import Troubled

pytestmark = pytest.mark.slow

CODES = [str(number) for number in range(60)]
CPUS = 4


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ray on this machine; its processes cost little, so that there may be more of them than the machine has CPUs."""
    with local_ray(__name__, CPUS, forked=True):
        yield


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., EvaluatorPool]]:
    """Makes pools that are closed in the end."""
    pools = list[EvaluatorPool]()

    def made(trouble: str, limit: Callable[[], int] = lambda: 2, **options: Any) -> EvaluatorPool:
        actor = ray.remote(num_cpus=1)(Troubled)
        pools.append(EvaluatorPool(lambda: actor.remote(tmp_path, trouble, **options), limit))
        return pools[-1]

    yield made
    for pool in pools:
        pool.close()


def _losses(scores: Sequence[Score]) -> list[str]:
    return [f"{score.loss:.0f}" for score in scores]


def _free() -> float:
    return float(ray.available_resources().get("CPU", 0.0))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scores_of_real_evaluators_are_those_of_this_process_in_the_same_precision(precision: Precision) -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2).eval()
    workload = Workload(model, SearchSpace(adapted_layers(model)), make_toy_split(30), make_toy_split(12), "macro-accuracy")
    settings, rng = TrainingSettings(epochs=3, batch_size=10, learning_rate=0.01), stream(0)
    sampler = FeasibleSampler(workload.space, 700)
    configs = [sampler.sample(rng) for _ in range(9)]
    supernet = workload.supernet(settings)
    settle(Share())
    Trainer(supernet, workload.train, settings).fit()
    scorer = SubnetScorer(supernet, deepcopy(workload.plain), precision)  # which it merges into
    expected = [scorer.score(config, workload.val, BATCH_SIZE, metric=workload.metric) for config in configs]
    state = supernet.trainable_state()

    pool = EvaluatorPool(evaluators(ray.put(workload.for_evaluation()), ray.put(state), settings, Share(), precision), lambda: 2)
    found = pool.score([encode(config) for config in configs])
    pool.close()

    assert found == expected
    other = SubnetScorer(supernet, deepcopy(workload.plain), "bfloat16" if precision == "float32" else "float32")
    assert found[0].loss != other.score(configs[0], workload.val, BATCH_SIZE, metric=workload.metric).loss


def test_what_evaluators_are_sent_has_no_training_examples() -> None:
    split = make_toy_split(30)
    model = torch.nn.Linear(2, 2)
    workload = Workload(model, SearchSpace(adapted_layers_of_toy()), split, split, "accuracy")

    sent = workload.for_evaluation()

    assert len(sent.train) == 0 and sent.train.pixels.untyped_storage().nbytes() == 0
    assert len(sent.val) == 30


def adapted_layers_of_toy() -> Any:
    """Some layers, for a space that nothing is drawn from."""
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2)
    return adapted_layers(model)


def test_evaluator_that_dies_is_replaced_and_nothing_else_is_scored_twice(make: Callable[..., EvaluatorPool], tmp_path: Path) -> None:
    pool = make("die")

    assert _losses(pool.score(CODES)) == CODES
    assert len(set((tmp_path / "seen-20").read_text().split())) == 2
    assert len((tmp_path / "seen-59").read_text().split()) == 1


def test_batch_that_kills_every_evaluator_is_given_up(make: Callable[..., EvaluatorPool]) -> None:
    with pytest.raises(WorkerLost, match="lost its evaluator 4 times"):
        make("die", always=True).score(CODES)


def test_evaluators_that_die_as_they_start_are_given_up(make: Callable[..., EvaluatorPool]) -> None:
    with pytest.raises(WorkerLost, match="as they started"):
        make("no start").score(CODES)


def test_stopped_evaluators_batch_is_scored_by_another(
    make: Callable[..., EvaluatorPool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "LATE_SECONDS", 0.5)
    pool = make("stop")

    assert _losses(pool.score(CODES)) == CODES

    stopped = int((tmp_path / "seen-20").read_text().split()[0])
    assert stopped in pool.pids(), "it may just have been slow"
    monkeypatch.setattr(pace, "HUNG_SECONDS", 0.1)
    until(lambda: _losses(pool.score(CODES)) == CODES and stopped not in pool.pids())


def test_stopped_evaluator_that_is_alone_is_replaced(make: Callable[..., EvaluatorPool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "HUNG_SECONDS", 2.0)

    assert _losses(make("stop", limit=lambda: 1).score(CODES)) == CODES


def test_pool_grows_into_what_gets_free(make: Callable[..., EvaluatorPool]) -> None:
    other = ray.remote(num_cpus=CPUS - 1)(Troubled).remote(Path("/nowhere"), "")
    ray.get(other.pid.remote())
    pool = make("none", limit=EvaluatorLimit(0, Share(), lambda: 1))
    assert _losses(pool.score(CODES)) == CODES
    assert len(pool.pids()) == 1

    ray.kill(other)
    until(lambda: _losses(pool.score(CODES)) == CODES and len(pool.pids()) == CPUS)


def test_pool_makes_room_for_another_job(make: Callable[..., EvaluatorPool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.cluster.pool._LIMIT_SECONDS", 0.0)
    running = [1]
    pool = make("none", limit=EvaluatorLimit(0, Share(), lambda: running[0]))
    until(lambda: _losses(pool.score(CODES)) == CODES and len(pool.pids()) == CPUS)

    running[0] = 2
    assert _losses(pool.score(CODES)) == CODES
    until(lambda: _losses(pool.score(CODES)) == CODES and len(pool.pids()) == CPUS // 2)
    until(lambda: _free() == CPUS - CPUS // 2)


@pytest.mark.parametrize("closed", [False, True])
def test_job_beside_others_asks_for_room_until_it_is_closed_and_holds_none(
    closed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = tmp_path / "done"
    monkeypatch.setattr(demand, "_nothing", lambda: done.touch())
    others = ray.remote(num_cpus=CPUS)(Troubled).remote(Path("/nowhere"), "")
    ray.get(others.pid.remote())
    limit = EvaluatorLimit(0, Share(), lambda: 2)
    assert limit() == CPUS // 2
    if closed:
        limit.close()

    ray.kill(others)
    ray.get(ray.remote(num_cpus=CPUS)(Troubled).remote(Path("/nowhere"), "").pid.remote())

    until(lambda: done.exists() != closed)
    until(lambda: _free() == CPUS)


def test_a_pause_lets_the_batches_in_hand_be_the_last_and_the_rest_can_be_scored_later(make: Callable[..., EvaluatorPool]) -> None:
    pool, found = make("none"), dict[int, Score]()
    for positions, scores in pool.batches(CODES, lambda: len(found) >= 10):
        found.update(zip(positions, scores, strict=True))

    assert 10 <= len(found) < len(CODES)
    left = [code for place, code in enumerate(CODES) if place not in found]
    rest = dict(zip(left, pool.score(left), strict=True))
    assert _losses([found[place] if place in found else rest[code] for place, code in enumerate(CODES)]) == CODES


def test_a_batch_that_is_lost_in_a_pause_is_left(make: Callable[..., EvaluatorPool], tmp_path: Path) -> None:
    pool = make("die", limit=lambda: 1)

    found = {place for positions, _ in pool.batches(CODES, (tmp_path / "seen-20").exists) for place in positions}

    assert found < set(range(20))
    assert len((tmp_path / "seen-20").read_text().split()) == 1


def test_nothing_is_begun_once_a_pause_is_asked_for(make: Callable[..., EvaluatorPool]) -> None:
    pool = make("none")

    assert list(pool.batches(CODES, lambda: True)) == []
    assert pool.pids() == []


def test_closed_pool_holds_nothing(make: Callable[..., EvaluatorPool]) -> None:
    pool = make("none")
    pool.score(CODES)

    pool.close()

    until(lambda: _free() == CPUS)
    assert _losses(pool.score(CODES)) == CODES, "with evaluators that are started anew"


@pytest.mark.parametrize(
    ("share", "count"), [(Share(), 4), (Share(0.5), 8), (Share(3.0), 1), (Share(8.0), 0), (Share(0, 1), 0), (Share(0.1), 40)]
)
def test_share_fits_so_often(share: Share, count: int) -> None:
    assert share.fitting({"CPU": 4.0, "memory": 1e9}) == count


def test_job_that_cannot_fit_is_told_what_the_cluster_has() -> None:
    with pytest.raises(ResourcesUnavailable, match=r"3 training workers with 2\.5 CPUs each, and the cluster has 4 CPUs"):
        wait_for(3, Share(2.5), 0)
