"""What the search is worth: its best candidates against random ones, the middle of the space and LoRA, all given the same finals.

One supernet and one search at LoRA's budget for each seed. Every group's subnets are trained on from their slices at the same rates for
the same epochs, by the same teacher, the average of the search's best; told are their accuracy inside the supernet, alone after that,
and as a soup. Prints a table over seeds; `--json` keeps the figures, and seeds that are in the file already are not run again. Data and
backbones are looked for in `--shared`.

python -m benchmarks.search_worth --shared DIR --seeds 0 1 2 --json FILE
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.attention import sdpa_kernel

from benchmarks.quality_parts.candidates import BATCH, find, soups, train_on, training_settings
from benchmarks.quality_parts.methods import METHODS, budgets
from benchmarks.quality_parts.sources import Data
from benchmarks.quality_parts.tasks import Task, asked_tasks, take_shared
from benchmarks.quality_parts.training import ATTENTION
from glora_core.api import Supernet
from glora_core.configs import SubnetConfig, decode
from glora_core.effort import EFFORTS
from glora_core.evaluation import SubnetScorer
from glora_core.training import TrainingSettings


@dataclass(frozen=True)
class Worth:
    """What one group of subnets came to, with one seed.

    Attributes:
        inside: test accuracy of each as it stands in the supernet.
        alone: test accuracy of each at each rate.
        chosen: test accuracy of the trial that is best on val, by loss where that is equal.
        soup: test accuracy of the greedy soup of all trials.
    """

    inside: list[float]
    alone: list[float]
    chosen: float
    soup: float


def groups(task: Task, searched: Sequence[SubnetConfig]) -> dict[str, list[SubnetConfig]]:
    """Subnets within the budget by where they come from; as many random ones as the search has candidates."""
    budget = budgets(task.layers)["full"]

    def drawn(method: str, seed: int) -> SubnetConfig:
        return decode(METHODS[method].variants(task, budget, seed)[0].what["subnet"])

    return {
        "search": list(searched),
        "random": [drawn("random", seed) for seed in range(len(searched))],
        "middle of the space": [drawn("middle", 0)],
        "LoRA": [drawn("lora", 0)],
    }


def run(task: Task, seed: int, rates: Sequence[float], count: int, epochs: int) -> dict[str, Worth]:
    """Every group's worth, with one seed."""
    data, effort = task.source.load(task.spec, seed), EFFORTS["standard"]
    training = training_settings(task, seed, effort)
    with sdpa_kernel(ATTENTION):
        supernet, best = find(task, data, seed, training, max(count, effort.teachers), effort)
        teachers = best[: effort.teachers]
        finals = [replace(training, learning_rate=rate, epochs=task.epochs(epochs), seed=seed + 1000) for rate in rates]
        return {name: _worth(supernet, configs, data, finals, teachers) for name, configs in groups(task, best[:count]).items()}


def _worth(
    supernet: Supernet, configs: Sequence[SubnetConfig], data: Data, finals: Sequence[TrainingSettings], teachers: Sequence[SubnetConfig]
) -> Worth:
    scorer = SubnetScorer(supernet)
    inside = [scorer.score(config, data.test, BATCH).accuracy for config in configs]
    trained = [train_on(supernet, config, data, settings, teachers) for config in configs for settings in finals]
    best = min(trained, key=lambda trial: (-trial.val.accuracy, trial.val.loss))
    return Worth(inside, [trial.test.accuracy for trial in trained], best.test.accuracy, soups(supernet, trained, data)["greedy"])


def table(found: Mapping[str, Mapping[str, Worth]]) -> Table:
    """Mean over seeds, and the spread of what a user would be given."""
    shown = Table("subnets", "in the supernet", "alone, mean", "alone, best on val", "soup")
    for name in next(iter(found.values())):
        rows = [worths[name] for worths in found.values()]
        means = [statistics.mean(statistics.mean(getattr(row, field)) for row in rows) for field in ("inside", "alone")]
        spreads = [_spread([getattr(row, field) for row in rows]) for field in ("chosen", "soup")]
        shown.add_row(name, *(f"{100 * mean:.1f}" for mean in means), *spreads)
    return shown


def _spread(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}"


def main() -> None:
    """Run what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    take_shared(parser)
    parser.add_argument("--task", default="omniglot_alph/vit", help="as of benchmarks/quality.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3])
    parser.add_argument("--candidates", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of each subnet alone")
    parser.add_argument("--home", type=Path, default=Path(".glora/benchmarks"), help="cache folder")
    parser.add_argument("--json", type=Path, required=True, help="file of the figures, by seed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    asked = {"task": given.task, "rates": given.rates, "candidates": given.candidates, "epochs": given.epochs}
    stored = json.loads(given.json.read_text()) if given.json.is_file() else asked | {"seeds": {}}
    if {name: stored[name] for name in asked} != asked:
        parser.error(f"--json: {given.json} has figures of other settings; name another file")
    for seed in given.seeds:
        if str(seed) not in stored["seeds"]:
            task = asked_tasks(given)[given.task]()
            worths = run(task, seed, given.rates, given.candidates, given.epochs)
            stored["seeds"][str(seed)] = {name: asdict(worth) for name, worth in worths.items()}
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps(stored, indent=1) + "\n")
    found = {seed: {name: Worth(**row) for name, row in rows.items()} for seed, rows in stored["seeds"].items()}
    Console().print(f"{given.task}, test accuracy in %, {len(found)} seeds", highlight=False)
    Console().print(table(found))


if __name__ == "__main__":
    main()
