"""What training finalists on and averaging them gains: as they stand, and by the rate they were trained on at, taught and untaught.

One supernet, one search at LoRA's budget, then the best candidates trained on from their slices at each rate, on labels alone and taught by
the average of the candidates as they stand: each alone, and their soups. Prints a table and, with
`--json`, keeps the figures. Data and backbones are looked for in `--shared`.

python -m benchmarks.soup_gain --shared DIR --seed 1
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.attention import sdpa_kernel

from benchmarks.quality_parts.candidates import Trained, find, measured, soups, train_on, training_settings
from benchmarks.quality_parts.sources import Data
from benchmarks.quality_parts.tasks import Task, asked_tasks, take_shared
from benchmarks.quality_parts.training import ATTENTION
from glora_core.api import Supernet
from glora_core.effort import EFFORTS


def run(task: Task, seed: int, rates: Sequence[float], count: int, epochs: int) -> list[dict[str, Any]]:
    """A row for the candidates as they stand, rows by rate, on labels alone and taught, one for all of either, and one for everyone."""
    data, effort = task.source.load(task.spec, seed), EFFORTS["standard"]
    training = training_settings(task, seed, effort)
    with sdpa_kernel(ATTENTION):
        supernet, best = find(task, data, seed, training, max(count, effort.teachers), effort)
        configs, teachers = best[:count], best[: effort.teachers]
        everyone = [measured(supernet, config, data) for config in configs]
        rows = [_row("as they stand", supernet, everyone, data)]
        for name, wise in (("", ()), (", taught", teachers)):
            groups = {}
            for rate in rates:
                finals = replace(training, learning_rate=rate, epochs=task.epochs(epochs), seed=seed + 1000)
                groups[f"{rate:g}{name}"] = [train_on(supernet, config, data, finals, wise) for config in configs]
            together = [one for group in groups.values() for one in group]
            rows += [_row(label, supernet, group, data) for label, group in {**groups, f"all rates{name}": together}.items()]
            everyone += together
        rows.append(_row("everyone", supernet, everyone, data))
    return rows


def _row(name: str, supernet: Supernet, group: Sequence[Trained], data: Data) -> dict[str, Any]:
    alone = {"alone": [one.test.accuracy for one in group], "alone_loss": [one.test.loss for one in group]}
    return {"rate": name, "alone_val": [one.val.accuracy for one in group]} | alone | soups(supernet, group, data)


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    take_shared(parser)
    parser.add_argument("--task", default="sign_digits/vit", help="as of benchmarks/quality.py")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3])
    parser.add_argument("--candidates", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of each candidate alone")
    parser.add_argument("--home", type=Path, default=Path(".glora/benchmarks"), help="cache folder")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    rows = run(asked_tasks(given)[given.task](), given.seed, given.rates, given.candidates, given.epochs)
    table = Table("peak rate", "alone, on test", "loss", "their mean", "uniform soup", "greedy soup (members)")
    for row in rows:
        span = f"{100 * min(row['alone']):.1f}–{100 * max(row['alone']):.1f} %"
        greedy = f"{100 * row['greedy']:.1f} % ({row['greedy_members']})"
        losses = f"{min(row['alone_loss']):.2f}–{max(row['alone_loss']):.2f}"
        table.add_row(row["rate"], span, losses, f"{100 * statistics.mean(row['alone']):.1f} %", f"{100 * row['uniform']:.1f} %", greedy)
    Console().print(table)
    if given.json:
        facts = {"task": given.task, "seed": given.seed, "epochs": given.epochs, "seconds": time.monotonic() - start}
        given.json.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
