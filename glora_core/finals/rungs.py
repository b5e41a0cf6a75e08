"""The order of the finals: rung after rung, in each of which every trial is trained before the better half goes on. No torch.

`play` decides who trains when; how, and on how many machines, is its caller's. What it decides depends on what trials
reached, and never on which came in first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from glora_core.finals.plan import FinalsSettings, Trial, survivors
from glora_core.search.history import Evaluated


@dataclass(frozen=True, slots=True)
class Leg:
    """One stretch of a trial's training, with a warm-up and a cosine of its own.

    Attributes:
        trial: who is trained.
        rung: which, from 1; 0 for a trial from scratch, which is trained in one go.
        epochs: of this stretch.
        trained: epochs that it has been trained alone once this stretch is done.
    """

    trial: Trial
    rung: int
    epochs: int
    trained: int


class _Reached(Protocol):
    @property
    def fitness(self) -> Evaluated: ...


R = TypeVar("R", bound=_Reached)
"""What a trained leg gave: its fitness on val, and whatever else the caller of `play` needs."""

TrainRung = Callable[[Sequence[Leg], Mapping[str, R]], Mapping[str, R]]
"""Trains all legs of a rung, given what each trial reached in the rung before, by its name; those that diverge are left out."""


def play(sliced: Sequence[Trial], scratch: Sequence[Trial], settings: FinalsSettings, train: TrainRung[R]) -> list[R]:
    """Play the finals; returns what every leg gave, best on val first.

    Args:
        sliced: trials of the first rung.
        scratch: trials from scratch, trained along with the first rung.
        train: called once for each rung.
    """
    legs = [Leg(trial, 0, settings.scratch_epochs, settings.scratch_epochs) for trial in scratch]
    found: list[tuple[str, R]] = []
    alive, trained = list(sliced), 0
    reached: Mapping[str, R] = {}
    for rung, epochs in enumerate(settings.epochs, 1):
        trained += epochs
        legs += [Leg(trial, rung, epochs, trained) for trial in alive]
        reached = train(legs, reached) if legs else {}
        found += [(leg.trial.name, reached[leg.trial.name]) for leg in legs if leg.trial.name in reached]
        alive, legs = survivors(alive, {name: result.fitness for name, result in reached.items()}), []
    return [result for _, result in sorted(found, key=lambda pair: (pair[1].fitness.order, pair[0]))]


def way(leg: Leg, settings: FinalsSettings) -> list[Leg]:
    """All stretches of a trial's training up to and with a leg, in order."""
    if leg.rung == 0:
        return [leg]
    epochs = settings.epochs[: leg.rung]
    return [Leg(leg.trial, rung, count, sum(epochs[:rung])) for rung, count in enumerate(epochs, 1)]


def planned(sliced: int, scratch: int, rungs: int) -> int:
    """How many legs finals have if no trial diverges: the first of `rungs` has `sliced` trials, each further one half of the last."""
    total = scratch
    for _ in range(rungs):
        total, sliced = total + sliced, (sliced + 1) // 2
    return total
