"""What evaluating in bfloat16 gains and what it changes: the same subnets in both precisions, in turns, in one run.

`python -m benchmarks.evaluation_precision --shared DIR` trains a supernet on a task of the quality table, draws subnets within a budget,
scores each on `val` in float32 and in bfloat16, and prints the ratio of the times, and whether the order of the subnets is another. Times
are those of this process on one thread, so that other work on the machine does not show.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.fidelity_parts.statistics import Scores, places, tau
from benchmarks.fidelity_parts.subnets import largest_budget, space_of
from benchmarks.quality import facts
from benchmarks.quality_parts.searched import VAL_BATCH
from benchmarks.quality_parts.sources import Data
from benchmarks.quality_parts.tasks import Task, asked_tasks, fresh_model, known_tasks, take_shared
from glora_core.configs import SubnetConfig
from glora_core.effort import DEFAULT, effort_named
from glora_core.evaluation import Score, SubnetScorer
from glora_core.precision import Precision
from glora_core.sampling import FeasibleSampler, stream
from glora_core.supernet import Supernet
from glora_core.training import Trainer, TrainingSettings

console = Console(width=150, highlight=False)
PRECISIONS: tuple[Precision, Precision] = ("float32", "bfloat16")
BEST = 5
_DRAWN = 106


@dataclass(frozen=True)
class Measured:
    """One subnet in both precisions: its scores, and the seconds that each took."""

    scores: tuple[Score, Score]
    seconds: tuple[float, float]


def trained(task: Task, data: Data, epochs: int) -> Supernet:
    """A supernet of the default recipe."""
    supernet = Supernet(fresh_model(task, data.classes), space_of(task))
    augment, rate = ("crop",) if task.source.images else (), effort_named(DEFAULT).learning_rate
    Trainer(supernet, data.train, TrainingSettings(epochs=epochs, learning_rate=rate, policy="sandwich", augment=augment)).fit()
    return supernet


def measure(supernet: Supernet, data: Data, configs: Sequence[SubnetConfig]) -> list[Measured]:
    """Every subnet in both precisions; which comes first changes from one to the next. The first one warms up and is left out."""
    scorers = [SubnetScorer(supernet, precision=precision) for precision in PRECISIONS]
    found = []
    for number, config in enumerate([configs[0], *configs]):
        scores, seconds = [], []
        for place in (0, 1) if number % 2 else (1, 0):
            start = time.process_time()
            scores.append(scorers[place].score(config, data.val, VAL_BATCH))
            seconds.append(time.process_time() - start)
        turn = 1 if number % 2 else -1
        found.append(Measured(tuple(scores[::turn]), tuple(seconds[::turn])))
    return found[1:]


def told(found: Sequence[Measured], examples: int) -> list[str]:
    """What came out, in lines."""
    single, mixed = ([Scores(m.scores[i].accuracy, m.scores[i].loss, 0.0) for m in found] for i in (0, 1))
    orders = places(single), places(mixed)
    agreed = tau(*orders)
    best = [sorted(range(len(found)), key=lambda i, order=order: -order[i])[:BEST] for order in orders]
    moved = [abs(a.val - b.val) * examples for a, b in zip(single, mixed, strict=True)]
    ratio = statistics.median(m.seconds[0] / m.seconds[1] for m in found)
    seconds = [1000 * statistics.median(m.seconds[i] for m in found) for i in (0, 1)]
    return [
        f"an evaluation takes {seconds[0]:.0f} ms in float32 and {seconds[1]:.0f} ms in bfloat16: {ratio:.2f} times as fast",
        f"order of {len(found)} subnets: Kendall's tau {agreed.value:.3f} [{agreed.low:.3f}, {agreed.high:.3f}]",
        f"of the best {BEST} in float32, {len(set(best[0]) & set(best[1]))} are among the best {BEST} in bfloat16; "
        f"the best there has place {1 + _place(orders[0], best[1][0])} in float32",
        f"accuracy differs by {statistics.mean(moved):.2f} images of {examples} in the mean, {max(moved):.0f} at most; "
        f"loss by {statistics.mean(abs(a.val_loss - b.val_loss) for a, b in zip(single, mixed, strict=True)):.4f} nats",
    ]


def _place(order: Sequence[float], subnet: int) -> int:
    """How many are better than a subnet."""
    return sum(place > order[subnet] for place in order)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(known_tasks(Path(), Path()))
    parser.add_argument("--task", choices=names, default=names[0], metavar="TASK", help=f"one of {', '.join(names)}")
    parser.add_argument("--epochs", type=int, default=6, help="of the supernet, before the task's pace")
    parser.add_argument("--subnets", type=int, default=50, help="drawn within the budget of LoRA of rank 4")
    take_shared(parser)
    parser.add_argument("--home", type=Path, default=Path(".glora") / "benchmarks", help="cache folder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = asked_tasks(arguments)[arguments.task]()
    data = task.source.load(task.spec, 0)
    supernet = trained(task, data, task.epochs(arguments.epochs))
    sampler = FeasibleSampler(supernet.space, largest_budget(task))
    configs = [sampler.sample(stream(0, _DRAWN, i)) for i in range(arguments.subnets)]
    lines = told(measure(supernet, data, configs), len(data.val))
    console.print(*lines, ", ".join(f"{name} {value}" for name, value in facts().items()), sep="\n")


if __name__ == "__main__":
    main()
