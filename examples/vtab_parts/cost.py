"""What a run will cost on this machine, from one step of training and one of scoring, measured."""

import math
import time
from dataclasses import replace

import torch

from glora_core.data.images import ImageSplit
from glora_core.evaluation import SubnetScorer
from glora_core.search import SearchSettings
from glora_core.supernet import Supernet
from glora_core.training import Trainer, TrainingSettings

_MEASURED = 16
"""Images of the measured steps on a CPU, or fewer where there are no more; on a GPU, a whole batch."""


def told_cost(supernet: Supernet, train: ImageSplit, val: int, training: TrainingSettings, search: SearchSettings) -> str:
    """Hours of training and searching, in a line. The supernet is trained a little, and no good for a run afterwards.

    Args:
        val: images of every evaluation.
    """
    on_cpu = train.labels.device.type == "cpu"
    count = min(_MEASURED if on_cpu else training.batch_size, len(train))
    part = train.part(torch.arange(count, device=train.labels.device))
    ends: list[float] = []
    steps = replace(training, epochs=3, warmup_epochs=0, batch_size=count)
    Trainer(supernet, part, steps).fit(lambda progress: ends.append(progress.seconds))
    trained = (ends[-1] - ends[0]) / (2 * count)  # the first step also warms up
    scored = _seconds_of_scoring(supernet, part) / count
    passes, evaluations = training.epochs * len(train), search.population * search.generations
    hours = passes * trained / 3600, evaluations * val * scored / 3600
    where = f"{torch.get_num_threads()} CPU threads" if on_cpu else torch.cuda.get_device_name()
    return (
        f"about {_round(sum(hours))} hours on {where}: {_round(hours[0])} of training ({passes:,} images forward and backward, "
        f"{1000 * trained:.1f} ms each), {_round(hours[1])} of searching ({evaluations:,} evaluations of {val:,} images, "
        f"{1000 * scored:.1f} ms each)"
    )


def _seconds_of_scoring(supernet: Supernet, part: ImageSplit) -> float:
    """How long one evaluation takes on some images, the second time."""
    scorer, configs = SubnetScorer(supernet), [supernet.space.extreme(largest=large) for large in (False, True)]
    for config in configs:
        start = time.perf_counter()
        scorer.score(config, part, len(part))
    return time.perf_counter() - start


def _round(hours: float) -> str:
    return f"{hours:.{max(0, 1 - math.floor(math.log10(hours)))}f}" if hours < 10 else f"{hours:.0f}"
