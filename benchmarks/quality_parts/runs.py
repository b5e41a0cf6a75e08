"""One run of the quality table, its identity, and the folder that keeps a JSON record of every run.

A record is there whole or not at all, under a name that is the hash of everything that decides the run; so whatever is killed,
a second start finds what is done and does the rest.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from glora_core.configs import LayerConfig, decode

from .methods import METHODS, Variant
from .tasks import Task

COMMON: Mapping[str, Any] = {"weight_decay": 1e-4, "warmup": 0.1}
"""What all methods share, beside batch size, precision, label smoothing and changes of images of the task, and the examples' order."""
FORWARD = 0.4
"""Cost of a forward pass alone, in passes forward and backward: 12 of 29 ms with the ViT-S in float32, which scores are in."""
SCORING = FORWARD * 1200
"""What scoring `val` and `test` costs at most, in the same."""
RECIPES = {"subnet": 1, "peft": 1, "full": 1, "searched": 11}
"""Raised when what a run of a kind computes changes, so that its old records count no longer."""
CHANGES = {"affine": 2}
"""The same of a change of images."""
STARTS = 3
"""The same of where our subnets start: the scales of what adapts, and the directions of a low-rank B."""


def shared_settings(task: Task) -> dict[str, Any]:
    """What all methods share on a task."""
    smoothed = {"label_smoothing": task.smoothing} if task.smoothing else {}  # runs without have no such entry in their identity
    return {
        **COMMON,
        **smoothed,
        "batch_size": task.batch_size,
        "precision": task.precision,
        "augment": task.augment if task.source.images else (),
    }


@dataclass(frozen=True)
class Run:
    """One training from start to score.

    Attributes:
        rate: peak learning rate; 0 where the method decides for itself, as are `epochs`.
    """

    task: Task
    method: str
    variant: Variant
    rate: float
    epochs: int
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """What training settings of ours it takes."""
        return shared_settings(self.task) | {"learning_rate": self.rate, "epochs": self.epochs, "seed": self.seed}

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides what it computes, in plain JSON types."""
        kind = METHODS[self.method].kind
        described = {"kind": kind, "recipe": RECIPES[kind], "what": dict(self.variant.what)}
        changes = {name: number for name, number in CHANGES.items() if name in self.settings["augment"]}
        adapts = kind == "subnet" and any(layer != LayerConfig() for layer in decode(self.variant.what["subnet"]))
        return self.task.identity | described | changes | ({"starts": STARTS} if adapts else {}) | self.settings

    @property
    def name(self) -> str:
        """Of its record: for people, and by its hash for certain. Methods that come to the same share one run."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]
        return f"{self.task.name.replace('/', '-')}-{self.identity['kind']}-seed{self.seed}-{digest}"


@dataclass(frozen=True)
class Record:
    """What a run came to.

    Attributes:
        val, test: accuracy, 0–1; `val` alone chooses.
        val_loss: mean cross-entropy in nats.
        parameters: trained ones, head not counted.
        passes: training examples that went forward and backward.
        forwards: examples that only went forward to choose something, as in a search.
        seconds: of wall time.
        failed: why there is no result, or an empty string.
        detail: whatever else a method has to tell.
    """

    val: float
    val_loss: float
    test: float
    parameters: int
    passes: int
    forwards: int
    seconds: float
    failed: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """What it took, in training examples that went forward and backward."""
        return self.passes + FORWARD * self.forwards

    @property
    def order(self) -> tuple[float, float]:
        """Sort key by `val`, best first."""
        return (-self.val, self.val_loss)


class Records:
    """The records of a folder.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Record] = {}

    def get(self, run: Run) -> Record | None:
        """The record of a run, if it was done."""
        name = run.name
        if name not in self._known:
            file = self.folder / f"{name}.json"
            if not file.is_file():
                return None
            self._known[name] = Record(**json.loads(file.read_text())["record"])
        return self._known[name]

    def speeds(self, task: Task) -> list[float]:
        """Seconds of each of a task's runs for a training example forward and backward; those that failed left out."""
        stored = [json.loads(file.read_text()) for file in self.folder.glob(f"{task.name.replace('/', '-')}-*.json")]
        found = [Record(**known["record"]) for known in stored if known["run"]["task"] == task.name]
        return [record.seconds / (record.cost + SCORING) for record in found if not record.failed]

    def put(self, run: Run, record: Record, facts: Mapping[str, Any]) -> None:
        """Write a record, whole or not at all; `facts` of the machine go with it."""
        file = self.folder / f"{run.name}.json"
        scratch = file.with_suffix(f".{os.getpid()}.part")
        stored = {"run": {"method": run.method, "label": run.variant.label} | run.identity, "record": asdict(record), "facts": dict(facts)}
        scratch.write_text(json.dumps(stored, indent=1) + "\n")
        with scratch.open("rb") as written:
            os.fsync(written.fileno())
        scratch.replace(file)
