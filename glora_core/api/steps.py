"""From an untrained supernet to the best adapter: train it, search it, and train the best alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from glora_core.configs import SubnetConfig
from glora_core.data.images import ImageSplit
from glora_core.data.split import Split
from glora_core.effort import AUGMENT, DEFAULT, LABEL_SMOOTHING, effort_named
from glora_core.evaluation import Score, SubnetScorer
from glora_core.finals import FinalsSettings
from glora_core.finals.run import Finalist, choose_soup, run_finals, train_again
from glora_core.metrics import ACCURACY
from glora_core.sampling import FeasibleSampler
from glora_core.search import Evaluated, SearchSettings, propose, rank
from glora_core.search.noise import rank_within_noise
from glora_core.supernet import Supernet
from glora_core.training import Probe, Progress, Trainer, TrainingSettings


@dataclass(frozen=True)
class SearchResult:
    """Every evaluated subnet within the budget, best first, and how good the best was after each generation."""

    ranked: list[Evaluated]
    progress: list[Evaluated] = field(default_factory=list)

    @property
    def best(self) -> Evaluated:
        """The best subnet; its accuracy on the split that chose it flatters it."""
        return self.ranked[0]


def train(
    supernet: Supernet,
    split: Split,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    *,
    effort: str = DEFAULT,
    val: Split | None = None,
    **settings: Any,
) -> list[Progress]:
    """Train a supernet, or, after `supernet.cut(config)`, one subnet alone from the supernet's numbers; returns its loss by epoch.

    Args:
        on_epoch: called after each epoch.
        effort: one of `glora_core.effort.EFFORTS`, which says the epochs and the learning rate unless they are given.
        val: a few subnets are probed on it along the way, so that a supernet that does not learn ends early; `patience` needs it.
        settings: of `TrainingSettings`; the policy is `sandwich`, images are changed by `crop`, and labels of classes smoothed by 0.1,
            unless given.

    Raises:
        ConfigInvalid: there is no such setting, or its value is not accepted.
        DataInvalid: the split is empty.
        Diverged: the loss is no longer finite.
        NotLearning: with `val`: half trained, and no better than guessing.
    """
    history: list[Progress] = []

    def note(progress: Progress) -> None:
        history.append(progress)
        on_epoch(progress)

    spent = effort_named(effort)
    chosen = _training(supernet, split, {"epochs": spent.epochs, "learning_rate": spent.learning_rate} | settings)
    probe = None if val is None else Probe.of(supernet, val, chosen.epochs, chosen.seed, chosen.budget, chosen.patience)
    Trainer(supernet, split, chosen, probe).fit(note)
    return history


def search(
    supernet: Supernet,
    split: Split,
    budget: int,
    settings: SearchSettings | None = None,
    *,
    effort: str = DEFAULT,
    seed: int = 0,
    batch_size: int = 50,
    on_generation: Callable[[int, Evaluated], None] = lambda number, best: None,
) -> SearchResult:
    """Find the best subnets of a trained supernet within a budget; no subnet is evaluated twice.

    Args:
        split: the validation split that decides.
        budget: upper bound on a subnet's trainable parameters, head not counted.
        settings: strategy, population, generations, metric, …; what they leave out has defaults of its own.
        effort: one of `glora_core.effort.EFFORTS`, which says population and generations where no settings are given.
        on_generation: called with the number of each generation and the best subnet so far.

    Raises:
        BudgetInfeasible: no subnet has so few parameters.
        ConfigInvalid: the metric does not take so many classes, or budget, seed or batch size are no such integers.
        DataInvalid: the split is empty.
    """
    settings = settings or effort_named(effort).search_settings
    sampler, scorer = FeasibleSampler(supernet.space, budget), SubnetScorer(supernet, precision=settings.precision)
    known: dict[SubnetConfig, Evaluated] = {}
    progress: list[Evaluated] = []
    for number in range(settings.generations):
        for proposal in propose(supernet.space, budget, settings, list(known.values()), number, seed, sampler):
            if proposal.config not in known:
                score = scorer.score(proposal.config, split, batch_size, metric=settings.metric)
                known[proposal.config] = _evaluated(supernet, proposal.config, score, settings.metric, number)
        progress.append(rank(known.values())[0])
        on_generation(number, progress[-1])
    return SearchResult(rank(known.values()), progress)


def finals(
    supernet: Supernet,
    train_split: Split,
    val_split: Split,
    found: SearchResult,
    budget: int,
    settings: FinalsSettings | None = None,
    *,
    effort: str = DEFAULT,
    batch_size: int = 50,
    on_trial: Callable[[Finalist], None] = lambda finalist: None,
    metric: str = ACCURACY,
    **training: Any,
) -> list[Finalist]:
    """Train the best candidates and the known methods within the budget alone; returns every finalist of every rung, best first.

    `finalist.on(supernet)` is what `export` takes.

    Args:
        val_split: the validation split that decides.
        found: the search's result; candidates enter by loss among those within one standard error of the best on val.
        settings: who is trained, at which learning rates and for how long; what they leave out has defaults of its own.
        effort: one of `glora_core.effort.EFFORTS`, which says so where no settings are given.
        on_trial: called with each finalist as soon as it is trained.
        metric: what they are compared by on val, as the search's.
        training: of `TrainingSettings`: how they are trained; images are changed by `crop` unless given.
    """
    chosen = _training(supernet, train_split, training)
    plan = settings or effort_named(effort).finals_settings
    ranked = rank_within_noise(found.ranked, len(val_split))
    return run_finals(supernet, train_split, val_split, ranked, budget, plan, chosen, batch_size, on_trial, metric=metric)


def retrain(
    supernet: Supernet,
    finalist: Finalist,
    split: Split,
    settings: FinalsSettings | None = None,
    *,
    effort: str = DEFAULT,
    **training: Any,
) -> Finalist:
    """A finalist trained anew in the way that was chosen, on another split: on train and val together, as VTAB's own protocol has it.

    Only a test split can tell what it is worth then; its `fitness` is that of before. `settings` or `effort`, and `training`, as they
    were given to `finals`.

    Raises:
        ConfigInvalid: the finalist was not trained alone; with `standing=0` in their settings, finals have no others.
    """
    plan = settings or effort_named(effort).finals_settings
    return train_again(supernet, finalist, split, plan, _training(supernet, split, training))


def soup(
    supernet: Supernet, finalists: Sequence[Finalist], split: Split, *, batch_size: int = 50, metric: str = ACCURACY
) -> tuple[list[Finalist], Score]:
    """The finalists whose averaged weights are best on the validation split, and the score; one alone where no average helps.

    Args:
        metric: what they are compared by, as the finals'.
    """
    members, found, _ = choose_soup(supernet, finalists, split, batch_size, metric=metric)
    return members, found


def _training(supernet: Supernet, split: Split, given: dict[str, Any]) -> TrainingSettings:
    """What is given, over the library's defaults for such a supernet and split."""
    policy = "random" if supernet.space.size == 1 else "sandwich"
    usual: dict[str, Any] = {
        "policy": policy,
        "augment": AUGMENT if isinstance(split, ImageSplit) else (),
        "entanglement": supernet.entanglement,
    }
    if split.labels.dim() == 1:  # of a language model, every token is a label
        usual["label_smoothing"] = LABEL_SMOOTHING
    return TrainingSettings.of(usual | given)


def _evaluated(supernet: Supernet, config: SubnetConfig, score: Score, metric: str, generation: int) -> Evaluated:
    measure = None if metric == ACCURACY else score.fitness
    parameters = supernet.space.parameters(config)
    return Evaluated(config, score.accuracy, score.loss, parameters, generation, measure=measure, macro_accuracy=score.macro_accuracy)
