"""Which subnets are trained alone and scored inside: some drawn over the range of budgets, and the known methods. Nothing here trains."""

from collections.abc import Mapping

import numpy as np

from benchmarks.quality_parts.methods import Variant, budgets
from benchmarks.quality_parts.runs import Run
from benchmarks.quality_parts.tasks import Task
from glora_core.configs import encode
from glora_core.methods import method_config
from glora_core.presets import preset
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import SearchSpace

KNOWN = ("lora", "bitfit", "ssf")
SMALLEST = 0.1
"""Share of the largest budget that the smallest one is."""
_DRAWN = 104


def space_of(task: Task) -> SearchSpace:
    """The space that the quality table's pipeline searches."""
    return preset("glora", task.layers)


def largest_budget(task: Task) -> int:
    """Parameters of LoRA of rank 4 on all layers that adapt."""
    return budgets(task.layers)["full"]


def chosen_subnets(task: Task, count: int) -> dict[str, str]:
    """Canonical texts of the subnets by name, the same for every seed: `count` drawn ones, then the known methods.

    Budgets are evenly spaced; under each of them one subnet is drawn, uniformly over those that keep it.
    """
    space, largest = space_of(task), largest_budget(task)
    limits = [int(share * largest) for share in np.linspace(SMALLEST, 1.0, count)]
    drawn = {f"drawn {i + 1}": FeasibleSampler(space, limit).sample(stream(0, _DRAWN, i)) for i, limit in enumerate(limits)}
    known = {name: method_config(space, name) for name in KNOWN}
    return {name: encode(config) for name, config in (drawn | known).items()}


def alone(task: Task, subnets: Mapping[str, str], rate: float, epochs: int, seed: int) -> dict[str, Run]:
    """The run that trains each subnet alone: runs of the quality table, of which a seed draws the training examples too."""
    return {
        name: Run(task, name if name in KNOWN else "random", Variant(name, {"subnet": text}), rate, epochs, seed)
        for name, text in subnets.items()
    }
