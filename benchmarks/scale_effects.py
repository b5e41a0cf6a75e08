"""What one optimiser step of each choice does to its layer's output, beside what a step of a low-rank B does, on a real backbone.

`python -m benchmarks.scale_effects --shared DIR` moves the numbers of every choice by ±1, on 32 training examples of a task of the
quality table, as `glora_core.calibration` does, and prints the effect as a share of a low-rank B's, over layers: with the scales that
were guessed before anything was measured, with those that are measured, and what these are. It trains nothing, and takes seconds.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.fidelity_parts.subnets import space_of
from benchmarks.quality import facts
from benchmarks.quality_parts.tasks import asked_tasks, fresh_model, known_tasks, take_shared
from glora_core.calibration import Effects, calibrate, step_effects
from glora_core.configs import TENSORS
from glora_core.layers.storage import KINDS, NormalisedStorage
from glora_core.supernet import Supernet
from glora_core.training.trainer import calibrating_inputs

console = Console(width=150, highlight=False)
Scale = Callable[[str, str], float]


def scale_of(support: NormalisedStorage) -> Scale:
    """The scale of each choice of a layer as it is now."""
    scales = support.scales.clone()
    return lambda tensor, kind: float(scales[TENSORS.index(tensor), KINDS.index(kind)])


def shares(found: dict[str, Effects], scales: dict[str, Scale], choice: tuple[str, str]) -> list[float]:
    """Effect of a choice's step as a share of a low-rank B's, by layer; layers in which it has none left out."""
    told = []
    for name, effects in found.items():
        of_b = effects["B", "lora"] * scales[name]("B", "lora")
        if effects[choice] > 0 and of_b > 0:
            told.append(effects[choice] * scales[name](*choice) / of_b)
    return told


def spread(values: Sequence[float]) -> str:
    """Least, median and most."""
    return " / ".join(f"{value:.2g}" for value in (min(values), statistics.median(values), max(values))) if values else "none"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(known_tasks(Path(), Path()))
    parser.add_argument("--task", choices=names, default=names[0], metavar="TASK", help=f"one of {', '.join(names)}")
    parser.add_argument("--blocks", type=int, help="only the first so many of the layers that adapt; all if absent")
    take_shared(parser)
    parser.add_argument("--home", type=Path, default=Path(".glora") / "benchmarks", help="cache folder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = asked_tasks(arguments)[arguments.task]()
    data = task.source.load(task.spec, 0)
    supernet = Supernet(fresh_model(task, data.classes), space_of(task))
    inputs = calibrating_inputs(data.train)
    found = dict(list(step_effects(supernet, inputs).items())[: arguments.blocks])
    supports = {shape.name: layer.support for shape, layer in supernet.layers() if isinstance(layer.support, NormalisedStorage)}
    guessed = {name: scale_of(supports[name]) for name in found}
    calibrate(supernet, inputs)
    measured = {name: scale_of(supports[name]) for name in found}
    title = "effect of a step, of a low-rank B's: least / median / most"
    table = Table("choice", "guessed scales", "measured scales", "the measured scale", title=title)
    for tensor, kind in next(iter(found.values())):
        scales = [measured[name](tensor, kind) for name in found]
        both = [spread(shares(found, scale, (tensor, kind))) for scale in (guessed, measured)]
        table.add_row(f"{tensor} {kind}", *both, spread(scales))
    console.print(table, f"{task.name}, {len(found)} layers; {', '.join(f'{name} {value}' for name, value in facts().items())}")


if __name__ == "__main__":
    main()
