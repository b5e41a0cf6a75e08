"""The order of the finals: rung after rung, in each of which every trial is trained before the better half goes on. No torch.

Trials from slices of the supernet and trials from scratch are halved apart, each by rungs of their own, but trained together.

`play` decides who trains when; how, and on how many machines, is its caller's. What it decides depends on what trials
reached, and never on which came in first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from glora_core.finals.plan import FinalsSettings, Trial, entrants, survivors
from glora_core.search.history import Evaluated


@dataclass(frozen=True, slots=True)
class Leg:
    """One stretch of a trial's training, with a warm-up and a cosine of its own.

    Attributes:
        trial: who is trained.
        rung: which, from 1; 0 of a subnet as it stands in the supernet, which is not trained at all.
        epochs: of this stretch.
        trained: epochs that it has been trained alone once this stretch is done.
        taught: whether the trial's teachers give half of what it learns.
        cycles: that the stretch is trained in; see `TrainingSettings`.
        afresh: whether it starts from scratch, whatever the trial has reached before.
    """

    trial: Trial
    rung: int
    epochs: int
    trained: int
    taught: bool = False
    cycles: int = 1
    afresh: bool = False

    @property
    def sliced(self) -> bool:
        """Whether what it trains comes from a slice of the supernet."""
        return self.trial.sliced and not self.afresh


class _Reached(Protocol):
    @property
    def fitness(self) -> Evaluated: ...


R = TypeVar("R", bound=_Reached)
"""What a trained leg gave: its fitness on val, and whatever else the caller of `play` needs."""

TrainRung = Callable[[Sequence[Leg], Mapping[str, R]], Mapping[str, R]]
"""Trains all legs of a rung, given what each trial reached in the rung before, by its name; those that diverge are left out."""


def as_they_stand(ranked: Sequence[Evaluated], settings: FinalsSettings) -> list[Leg]:
    """The best distinct of the search's evaluated subnets, given best first, which are compared with what is trained alone."""
    count = 0 if settings.mode == "off" else settings.standing
    return [Leg(Trial(source, config, None, sliced=True), 0, 0, 0) for source, config in entrants(ranked, count).items()]


def play(sliced: Sequence[Trial], scratch: Sequence[Trial], settings: FinalsSettings, train: TrainRung[R]) -> list[R]:
    """Play the finals; returns what every leg gave, best on val first.

    Args:
        sliced: trials of the first rung.
        scratch: trials from scratch.
        train: called once for each rung.
    """
    found: list[tuple[str, R]] = []
    groups, reached = (list(scratch), list(sliced)), dict[str, R]()
    for rung in range(1, max(len(settings.epochs), len(settings.scratch_epochs)) + 1):
        legs = [leg for group in groups for trial in group for leg in _way(trial, settings)[rung - 1 : rung]]
        if not legs:
            continue
        reached = {**train(legs, reached)}
        found += [(leg.trial.name, reached[leg.trial.name]) for leg in legs if leg.trial.name in reached]
        fitness = {name: result.fitness for name, result in reached.items()}
        groups = (survivors(groups[0], fitness), survivors(groups[1], fitness))
    return [result for _, result in sorted(found, key=lambda pair: (pair[1].fitness.order, pair[0]))]


def way(leg: Leg, settings: FinalsSettings) -> list[Leg]:
    """The stretches of training that a leg's numbers come from, in order; the leg is the last."""
    return [leg] if leg.afresh else _way(leg.trial, settings)[: leg.rung]


def _way(trial: Trial, settings: FinalsSettings) -> list[Leg]:
    """All stretches of a trial's training, if it goes on to the end."""
    return [
        Leg(
            trial,
            rung,
            epochs,
            trained=epochs if trial.sliced and settings.afresh_in(rung) else sum(settings.rungs(trial.sliced)[:rung]),
            taught=bool(trial.teachers) and settings.taught(rung),
            cycles=settings.cycles_of(rung) if trial.sliced else 1,
            afresh=trial.sliced and settings.afresh_in(rung),
        )
        for rung, epochs in enumerate(settings.rungs(trial.sliced), 1)
    ]


def epochs_of_all(settings: FinalsSettings) -> tuple[int, int]:
    """Epochs of all candidates of `thorough` together if none diverges, and how many of these are taught."""
    trials = halved(settings.candidates * len(settings.learning_rates), len(settings.epochs))
    rungs = [count * epochs for count, epochs in zip(trials, settings.epochs, strict=True)]
    return sum(rungs), sum(epochs for rung, epochs in enumerate(rungs, 1) if settings.taught(rung))


def halved(trials: int, rungs: int) -> list[int]:
    """How many trials each rung has if none diverges: the first has all, each further one the better half of the last, rounded up."""
    counts = []
    for _ in range(rungs):
        counts.append(trials)
        trials = (trials + 1) // 2
    return counts
