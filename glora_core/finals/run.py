"""The finals played in one process: every leg trained in turn, scored on val, best first.

Says how one subnet is trained alone, from its slice of a supernet or from scratch; who is trained is `plan`'s and `rungs`'.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from glora_core.configs import SubnetConfig, decode, encode
from glora_core.data.split import Split
from glora_core.errors import ConfigInvalid, Diverged
from glora_core.evaluation import Score, SubnetScorer, score
from glora_core.finals.plan import FinalsSettings, first_rung, from_scratch
from glora_core.finals.ranking import asked_for_soup, one_basin, rank_finalists
from glora_core.finals.rungs import Leg, as_they_stand, play, way
from glora_core.finals.soup import averaged, best_soup
from glora_core.methods import methods_inside, methods_within
from glora_core.metrics import ACCURACY
from glora_core.search.history import Evaluated
from glora_core.supernet import Supernet
from glora_core.training import Progress, Trainer, TrainingSettings


@dataclass(frozen=True)
class Finalist:
    """A subnet trained alone, or as it stands in a supernet.

    Attributes:
        leg: the trial, and how far it was trained alone.
        fitness: on val, as everyone's here.
        state: trainable state of a supernet that has this one subnet.
    """

    leg: Leg
    fitness: Evaluated
    state: Mapping[str, Tensor]

    @property
    def config(self) -> SubnetConfig:
        """The subnet."""
        return self.leg.trial.config

    def on(self, supernet: Supernet) -> Supernet:
        """As a supernet that has this one subnet, over a copy of the backbone of the supernet that the finalist came from."""
        alone = single(supernet, self.config)
        alone.load_trainable_state(self.state)
        return alone


def run_finals(
    supernet: Supernet,
    train_split: Split,
    val_split: Split,
    ranked: Sequence[Evaluated],
    budget: int,
    settings: FinalsSettings,
    training: TrainingSettings,
    batch_size: int = 50,
    on_trial: Callable[[Finalist], None] = lambda finalist: None,
    *,
    metric: str = ACCURACY,
) -> list[Finalist]:
    """Train the best candidates and the known methods within the budget alone; returns every finalist of every rung, best first.

    The best candidates as they stand in the supernet are finalists too. Ranked as by `rank_finalists`, so that the first one is never
    worse on val than a known method within the budget that was trained alone. A trial that diverges is left out.

    Args:
        supernet: trained; left as it is.
        ranked: its evaluated subnets, best first.
        budget: upper bound on trainable parameters, head not counted.
        settings: who is trained, at which rates and for how long.
        training: all else of how they are trained: as the supernet was.
        batch_size: examples scored at once.
        on_trial: called with each finalist as soon as it is trained.
        metric: what fitness on val is, one of `glora_core.metrics.METRIC_NAMES`.
    """
    known = methods_within(supernet.space, budget)
    trials = first_rung(ranked, settings, methods_inside(supernet.space, budget))
    wise = taught_by(supernet, trials[0].teachers) if trials else None

    def train(legs: Sequence[Leg], before: Mapping[str, Finalist]) -> dict[str, Finalist]:
        found: dict[str, Finalist] = {}
        for leg in legs:
            start = None if leg.afresh else before.get(leg.trial.name)
            alone = start.on(supernet) if start else _start(supernet, leg, training.seed)
            try:
                Trainer(alone, train_split, leg_settings(leg, training), teacher=wise if leg.taught else None).fit()
            except Diverged:
                continue
            found[leg.trial.name] = reached(leg, alone)
        return found

    def reached(leg: Leg, alone: Supernet) -> Finalist:
        score = SubnetScorer(alone).score(leg.trial.config, val_split, batch_size, metric=metric)
        finalist = Finalist(leg, _evaluated(alone, leg.trial.config, score, metric), alone.trainable_state())
        on_trial(finalist)
        return finalist

    standing = [reached(leg, supernet.cut(leg.trial.config)) for leg in as_they_stand(ranked, settings)]
    found = play(trials, from_scratch(known, settings), settings, train)
    return rank_finalists(standing + found, len(val_split))


def _evaluated(alone: Supernet, config: SubnetConfig, score: Score, metric: str) -> Evaluated:
    measure = None if metric == ACCURACY else score.fitness
    parameters = alone.space.parameters(config)
    return Evaluated(config, score.accuracy, score.loss, parameters, measure=measure, macro_accuracy=score.macro_accuracy)


def train_again(supernet: Supernet, finalist: Finalist, split: Split, settings: FinalsSettings, training: TrainingSettings) -> Finalist:
    """A finalist trained anew in the very way that it was, on another split, such as train and val together: VTAB's own protocol.

    Args:
        supernet: that it came from.
        split: examples to train on; where val is among them, the fitness that the finalist keeps is that of before.
        settings, training: those of its finals.

    Raises:
        ConfigInvalid: the finalist was not trained alone, but stands as it is in the supernet.
        Diverged: a loss is not finite.
    """
    if not finalist.leg.epochs:
        raise ConfigInvalid(f"{finalist.leg.trial.name} was not trained alone; accepted is a finalist that was (finals with standing=0)")
    first, *further = way(finalist.leg, settings)
    alone, teacher = _start(supernet, first, training.seed), taught_by(supernet, first.trial.teachers)
    for leg in (first, *further):
        Trainer(alone, split, leg_settings(leg, training), teacher=teacher if leg.taught else None).fit()
    return replace(finalist, state=alone.trainable_state())


def choose_soup(
    supernet: Supernet, finalists: Sequence[Finalist], val_split: Split, batch_size: int = 50, *, metric: str = ACCURACY
) -> tuple[list[Finalist], Score, nn.Module]:
    """The finalists whose averaged weights are best on val: greedily taken up, or all slices of the supernet, whichever is better.

    Asked are `asked_for_soup`, the winner of the finals first, so that the average is no worse on val than it is: in fitness, and by
    loss where that is equal. Every member is within the budget that the finals kept; together they have
    the sum of their parameters.

    Args:
        supernet: that the finalists come from.
        finalists: one at least.
        metric: what their fitness is, and the average's.

    Returns:
        the members (the winner alone where no average is better), the score on val, and a plain network with the averaged weights.
    """
    asked, plain = asked_for_soup(finalists, len(val_split)), supernet.bare()

    def measure(network: nn.Module) -> Score:
        return score(network, val_split, batch_size, metric=metric)

    soup = best_soup([partial(_merged, supernet, f) for f in asked], plain, measure, one_basin(asked))
    return [asked[member] for member in soup.members], soup.score, plain


def _merged(supernet: Supernet, finalist: Finalist) -> dict[str, Tensor]:
    return finalist.on(supernet).merged_state(finalist.config, torch.float64)


def taught_by(supernet: Supernet, teachers: Sequence[SubnetConfig]) -> nn.Module | None:
    """The network that teaches trials from slices: the average of subnets as they stand in the supernet; None where there are none."""
    if not teachers:
        return None
    return averaged([partial(supernet.merged_state, config, torch.float64) for config in teachers], supernet.bare())


def leg_settings(leg: Leg, training: TrainingSettings, start: str | None = None) -> TrainingSettings:
    """How a leg is trained: as the supernet was, but always the same subnet, at the trial's own rate, and to the end of its epochs.

    Args:
        training: of the supernet.
        start: key of what it starts from; None where nothing needs to know.
    """
    assert leg.trial.learning_rate is not None, "a subnet that stands as it is in the supernet is not trained"
    return replace(
        training,
        epochs=leg.epochs,
        learning_rate=leg.trial.learning_rate,
        warmup=training.warmup_share,
        warmup_epochs=None,
        patience=None,
        ema=0.0 if leg.cycles > 1 else training.ema,
        cycles=leg.cycles,
        policy="fixed",
        subnets=1,
        sampling="uniform",
        budget=None,
        fixed=encode(leg.trial.config),
        start=start,
        teachers=tuple(encode(config) for config in leg.trial.teachers) if leg.taught else (),
        seed=training.seed + leg.rung,  # examples come in another order than in the training before
    )


def train_alone(
    alone: Supernet,
    train_split: Split,
    val_split: Split,
    settings: TrainingSettings,
    batch_size: int,
    plain: nn.Module | None = None,
    *,
    metric: str = ACCURACY,
    teacher: nn.Module | None = None,
    reached: Mapping[str, Any] | None = None,
    on_epoch: Callable[[Callable[[], dict[str, Any]]], None] = lambda state: None,
) -> tuple[list[Progress], Score]:
    """Train a supernet's one subnet, in place; returns the epochs and its score on val.

    Args:
        settings: of policy `fixed`.
        plain: see `SubnetScorer`.
        metric: what the score's fitness is.
        teacher: the network of `settings.teachers`, if there are any.
        reached: a state that `on_epoch` could take before, to go on from bit for bit.
        on_epoch: called after each epoch but the last, with what gives the state there, which `torch.save` takes.

    Raises:
        Diverged: a loss is not finite.
    """
    trainer, history = Trainer(alone, train_split, settings, teacher=teacher), list[Progress]()
    if reached is not None:
        history = [Progress(**row) for row in reached["history"]]
        trainer.load_state(reached)

    def note(progress: Progress) -> None:
        history.append(progress)
        if not trainer.finished:
            on_epoch(lambda: trainer.state() | {"history": [asdict(row) for row in history]})

    trainer.fit(note)
    return history, SubnetScorer(alone, plain).score(decode(settings.fixed or ""), val_split, batch_size, metric=metric)


def single(supernet: Supernet, config: SubnetConfig, seed: int = 0) -> Supernet:
    """An untrained supernet whose only subnet is `config`, which need not be in the other's space, over a copy of its backbone."""
    alone = Supernet(supernet.bare(), supernet.space.covering(config), supernet.entanglement, seed)
    alone.set_config(config)
    return alone


def _start(supernet: Supernet, leg: Leg, seed: int) -> Supernet:
    """What a leg starts from that does not go on from another one."""
    config = leg.trial.config
    return supernet.cut(config) if leg.sliced else single(supernet, config, seed)
