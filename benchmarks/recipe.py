"""How networks should be trained: the batch size, and the random changes of images, of a supernet and of LoRA alone.

For each recipe a supernet of `standard`'s epochs, of which LoRA, the largest subnet and six random ones within LoRA's budget are scored
as they stand; and LoRA of rank 4 trained alone from scratch, in several orders of examples. Told are accuracy in % and loss in nats on
test. What is in the file of `--json` already is not run again. Data and backbones are looked for in `--shared`.

python -m benchmarks.recipe --shared DIR --task omniglot_alph/vit-half --sizes 50 16 --changes crop crop,affine --json FILE
"""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.attention import sdpa_kernel

from benchmarks.quality_parts.candidates import training_settings
from benchmarks.quality_parts.methods import budgets
from benchmarks.quality_parts.searched import VAL_BATCH
from benchmarks.quality_parts.sources import Data
from benchmarks.quality_parts.tasks import Task, asked_tasks, fresh_model, take_shared
from benchmarks.quality_parts.training import ATTENTION, subnet
from glora_core.api import Supernet
from glora_core.configs import encode
from glora_core.effort import DEFAULT, effort_named
from glora_core.evaluation import Score, SubnetScorer
from glora_core.methods import method_config
from glora_core.presets import preset
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import SearchSpace
from glora_core.training import Trainer, TrainingSettings

RANDOM = 6
Figures = Mapping[str, Sequence[float]]
"""Accuracy, 0–1, and loss in nats, by what was scored."""


@dataclass(frozen=True)
class Recipe:
    """What is compared: examples of a step, and random changes of images."""

    batch_size: int
    augment: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people, and for the file."""
        return f"batches of {self.batch_size}, {' and '.join(self.augment) or 'images as they are'}"


def supernet(task: Task, data: Data, training: TrainingSettings) -> Figures:
    """Subnets as they stand in a supernet of `standard`: LoRA, the largest, and the mean of random ones within LoRA's budget."""
    made = Supernet(fresh_model(task, data.classes), preset("glora", task.layers), seed=0)
    Trainer(made, data.train, replace(training, epochs=task.epochs(effort_named(DEFAULT).epochs), policy="sandwich")).fit()
    scorer, sampler = SubnetScorer(made), FeasibleSampler(made.space, budgets(task.layers)["full"])
    random = [_figures(scorer.score(sampler.sample(stream(0, number)), data.test, VAL_BATCH)) for number in range(RANDOM)]
    named = {"LoRA": method_config(made.space, "lora"), "largest": made.space.extreme(largest=True)}
    found = {name: _figures(scorer.score(config, data.test, VAL_BATCH)) for name, config in named.items()}
    return found | {"random": [statistics.mean(values) for values in zip(*random, strict=True)]}


def alone(task: Task, data: Data, training: TrainingSettings, epochs: int, order: int) -> Figures:
    """LoRA from scratch, from the same first values whatever the order."""
    config = method_config(SearchSpace.of(task.layers), "lora")
    lora = subnet(task, fresh_model(task, data.classes), {"subnet": encode(config)}, seed=0)
    Trainer(lora, data.train, replace(training, epochs=task.epochs(epochs), policy="fixed", fixed=encode(config), seed=order)).fit()
    return {f"LoRA alone, {epochs} epochs": _figures(SubnetScorer(lora).score(config, data.test, VAL_BATCH))}


def measures(
    task: Task, data: Data, training: TrainingSettings, lengths: Sequence[int], orders: Sequence[int]
) -> dict[str, Callable[[], Figures]]:
    """All that is measured of a recipe, by its name in the file."""
    alike: dict[str, Callable[[], Figures]] = {"supernet": partial(supernet, task, data, training)}
    return alike | {
        f"{epochs} epochs, order {order}": partial(alone, task, data, training, epochs, order) for epochs, order in product(lengths, orders)
    }


def _figures(score: Score) -> list[float]:
    return [score.accuracy, score.loss]


def table(found: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> Table:
    """One row for each recipe: the mean over orders, and how many there are."""
    columns = list(dict.fromkeys(name for row in found.values() for name in row))
    shown = Table("recipe", *columns)
    for name, row in found.items():
        shown.add_row(name, *(_told(row.get(column, [])) for column in columns))
    return shown


def _told(scores: Sequence[Sequence[float]]) -> str:
    if not scores:
        return ""
    accuracy, loss = (statistics.mean(values) for values in zip(*scores, strict=True))
    return f"{100 * accuracy:.1f}, {loss:.3f}" + (f" ({len(scores)})" if len(scores) > 1 else "")


def _augment(text: str) -> tuple[str, ...]:
    return tuple(kind for kind in text.split(",") if kind)


def main() -> None:
    """Run what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    take_shared(parser)
    parser.add_argument("--task", default="omniglot_alph/vit-half", help="as of benchmarks/quality.py")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 16], metavar="EXAMPLES", help="of a step")
    parser.add_argument(
        "--changes", type=_augment, nargs="+", default=[("crop",)], metavar="KINDS", help="of images, with commas between them"
    )
    parser.add_argument("--lengths", type=int, nargs="*", default=[120], metavar="EPOCHS", help="of LoRA alone; none: supernets only")
    parser.add_argument("--orders", type=int, nargs="+", default=[0], help="of LoRA alone")
    parser.add_argument("--home", type=Path, default=Path(".glora/benchmarks"), help="cache folder")
    parser.add_argument("--json", type=Path, required=True, help="file of the figures")
    given = parser.parse_args()
    torch.set_num_threads(1)
    task = asked_tasks(given)[given.task]()
    data, asked = task.source.load(task.spec, 0), {"task": task.name, "precision": task.precision, "label_smoothing": task.smoothing}
    stored: dict[str, Any] = json.loads(given.json.read_text()) if given.json.is_file() else asked | {"recipes": {}}
    if {name: stored[name] for name in asked} != asked:
        parser.error(f"--json: {given.json} has figures of other settings; name another file")
    for recipe in (Recipe(*pair) for pair in product(given.sizes, given.changes)):
        training = replace(training_settings(task, 0, effort_named(DEFAULT)), batch_size=recipe.batch_size, augment=recipe.augment)
        rows = stored["recipes"].setdefault(recipe.name, {})
        for name, measure in measures(task, data, training, given.lengths, given.orders).items():
            if name not in rows:
                with sdpa_kernel(ATTENTION):
                    rows[name] = measure()
                given.json.parent.mkdir(parents=True, exist_ok=True)
                given.json.write_text(json.dumps(stored, indent=1) + "\n")
    Console().print(f"{task.name}, accuracy in % and loss on test", highlight=False)
    Console().print(table({name: _by_column(rows) for name, rows in stored["recipes"].items()}))


def _by_column(rows: Mapping[str, Figures]) -> dict[str, list[Sequence[float]]]:
    found: dict[str, list[Sequence[float]]] = {}
    for figures in rows.values():
        for name, scores in figures.items():
            found.setdefault(name, []).append(scores)
    return found


if __name__ == "__main__":
    main()
