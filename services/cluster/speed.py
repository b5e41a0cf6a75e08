"""How fast this cluster trains and scores a job's subnets: a few steps and a few scores, timed where they will run.

Two sizes of batch tell what a step costs whatever its size; where the smaller one is slow already, it alone has to do.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import ray
import torch

from glora_core.evaluation import SubnetScorer
from glora_core.expected import Line, Speed
from glora_core.training import Trainer, TrainingSettings
from services.cluster.pulse import at_work
from services.cluster.resources import ResourcesUnavailable, Share
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE

_FEW, _MORE = 2, 12
_PATIENCE = 10.0
"""Seconds for a few examples above which more are not tried; making a subnet's weights may take longer than running a few examples."""


def measure_speed(workload: "ray.ObjectRef[Workload]", settings: TrainingSettings, share: Share) -> Speed:
    """The speed of one process with its share of the cluster.

    Args:
        settings: of the supernet; trained is a copy that is thrown away.
        share: of the cluster, that each training worker holds.

    Raises:
        ResourcesUnavailable: it holds a part of a GPU that torch does not find; a job would take many times as long as was asked for.
    """
    found: Speed = ray.get(ray.remote(max_retries=3, **share.options())(_measure).remote(workload, settings, share))
    return found


@at_work
def _measure(workload: Workload, settings: TrainingSettings, share: Share) -> Speed:
    device = settle(share)
    if share.use_gpu and device.type == "cpu":
        node = ray.util.get_node_ip_address()
        raise ResourcesUnavailable(
            f"training.use_gpu: torch {torch.__version__} finds no GPU on node {node}, which offers some to Ray; install a torch"
            " that fits its GPUs and driver there, or leave use_gpu out"
        )
    supernet, split, val = workload.supernet(settings).to(device), workload.train.to(device), workload.val.to(device)
    scorer, largest = SubnetScorer(supernet, workload.plain.to(device)), supernet.space.extreme(largest=True)
    smallest = supernet.space.extreme(largest=False)

    def step(count: int) -> float:
        """Seconds of a step: the second of two, since the first one warms up."""
        few = split.part(torch.arange(count, device=split.labels.device))
        reports: list[float] = []
        timed = replace(settings, epochs=2, batch_size=count, learning_rate=1e-6, warmup_epochs=None, patience=None)
        Trainer(supernet, few, timed).fit(lambda progress: reports.append(progress.seconds))
        return reports[1] - reports[0]

    def score(count: int) -> float:
        """Seconds of a score; whatever was scored before, all of the layers are merged again."""
        few = val.part(torch.arange(count, device=val.labels.device))
        scorer.score(smallest, few, BATCH_SIZE)
        start = time.perf_counter()
        scorer.score(largest, few, BATCH_SIZE)
        return time.perf_counter() - start

    return Speed(_line(step, min(len(split), settings.batch_of(len(split)))), _line(score, len(val)))


def _line(timed: Callable[[int], float], most: int) -> Line:
    few, more = min(_FEW, most), min(_MORE, most)
    first = few, timed(few)
    return Line.through(first, (more, timed(more)) if more > few and first[1] < _PATIENCE else None)
