"""How supernets are trained: named variants of the training settings, and the runs that they and the subnets alone are on a task.

All have the same number of steps. A step of one recipe may cost more passes than a step of another, which the table tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.quality_parts.methods import Variant
from benchmarks.quality_parts.runs import FORWARD, SCORING, Run
from benchmarks.quality_parts.tasks import Task
from glora_core.presets import RANKS

from .subnets import alone, chosen_subnets, largest_budget

VERSION = 1
"""Raised when what a run computes changes, so that its old records count no longer."""
_SOUPS = 5 * FORWARD * 200
"""Scores of soups on `val`."""


@dataclass(frozen=True)
class Recipe:
    """One way to train a supernet.

    Attributes:
        training: what differs from the quality table's own settings.
        scales: `measured` as by default; `guessed`, as they were before anything was measured; `equal`, measured so that every
            choice has the effect of a low-rank B.
    """

    training: Mapping[str, Any]
    scales: str = "measured"

    @property
    def passes(self) -> int:
        """Forward and backward passes of a step: the random subnets', and those of the fixed ones of a sandwich."""
        return int(self.training.get("subnets", 1)) + {"random": 0, "sandwich": 1, "full-sandwich": 2}[self.training["policy"]]


_SANDWICH = {"policy": "sandwich"}
RECIPES: Mapping[str, Recipe] = {
    "random": Recipe({"policy": "random"}),
    "sandwich": Recipe(_SANDWICH),
    "sandwich, 2 subnets": Recipe(_SANDWICH | {"subnets": 2}),
    "full-sandwich": Recipe({"policy": "full-sandwich"}),
    "fair": Recipe(_SANDWICH | {"sampling": "fair"}),
    "progressive": Recipe(_SANDWICH | {"sampling": "progressive"}),
    "budget": Recipe(_SANDWICH | {"sampling": "budget"}),
    "paper form": Recipe({"policy": "random", "entanglement": "paper"}),
    "no augmentation": Recipe(_SANDWICH | {"augment": ()}),
    "guessed scales": Recipe(_SANDWICH, "guessed"),
    "equal effects": Recipe(_SANDWICH, "equal"),
}
"""Where nothing else is said, a sandwich with uniform sampling in the normalised form, so that each differs from that in one thing."""


@dataclass(frozen=True)
class SupernetRun(Run):
    """The training of one supernet, and the scores of the subnets inside it.

    Attributes:
        training: what differs from the quality table's own settings.
    """

    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """What training settings it takes."""
        return super().settings | dict(self.training)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides what it computes. Recipes that come to the same on a task share one run."""
        return self.task.identity | {"kind": "supernet", "recipe": VERSION, "what": dict(self.variant.what)} | self.settings

    @property
    def passes(self) -> int:
        """Training examples that go forward and backward."""
        return RECIPES[self.variant.label].passes * self.epochs * self.task.source.size

    @property
    def expected_cost(self) -> float:
        """Of training and of all scores, in training examples that go forward and backward."""
        return self.passes + (len(self.variant.what["subnets"]) + 2) * SCORING + _SOUPS


def supernet_run(task: Task, recipe: str, subnets: Mapping[str, str], rate: float, epochs: int, seed: int) -> SupernetRun:
    """The run of a recipe on a task."""
    training = dict(RECIPES[recipe].training)
    if training.get("sampling") == "budget":
        training["budget"] = largest_budget(task)
    what = {"ranks": list(RANKS["glora"]), "scales": RECIPES[recipe].scales, "subnets": dict(subnets)}
    return SupernetRun(task, "supernet", Variant(recipe, what), rate, epochs, seed, training)


@dataclass(frozen=True)
class Experiment:
    """All runs of one task: of each subnet alone, and of each recipe, by name."""

    task: Task
    subnets: Mapping[str, str]
    alone: Mapping[str, Run]
    supernets: Mapping[str, SupernetRun]

    @property
    def runs(self) -> list[Run]:
        """Each once."""
        return list({run.name: run for run in (*self.alone.values(), *self.supernets.values())}.values())


def experiment(task: Task, recipes: Sequence[str], count: int, rate: float, length: int, seed: int) -> Experiment:
    """So many drawn subnets and the known methods, alone and in a supernet of every recipe; `length`: epochs, before the task's pace."""
    subnets, epochs = chosen_subnets(task, count), task.epochs(length)
    supernets = {recipe: supernet_run(task, recipe, subnets, rate, epochs, seed) for recipe in recipes}
    return Experiment(task, subnets, alone(task, subnets, rate, epochs, seed), supernets)
