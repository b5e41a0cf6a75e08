"""The last round: which subnets are trained alone, how, and who goes on. Pure functions, no torch.

A trial is one subnet with one learning rate, trained from the supernet's slice or from scratch. Trials are halved synchronously
(Jamieson and Talwalkar, arXiv 1502.07943): all of a rung are trained before any is dropped, so that a decision depends on what
they reached and never on which came in first; a resumed or a differently parallel run ends with the same winner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from glora_core.checks import check_positive, check_whole
from glora_core.configs import TENSORS, SubnetConfig
from glora_core.errors import ConfigInvalid
from glora_core.methods import METHODS
from glora_core.search.history import Evaluated

MODES = ("off", "winner", "thorough")
LORA = "lora"
DISTINCT = 0.05
"""Share of all choices in which two candidates must differ to both be finalists, as long as there are others."""


@dataclass(frozen=True, slots=True)
class FinalsSettings:
    """How the finals go.

    Args:
        mode: `off`, the search's winner is taken as it is in the supernet; `winner`, it is trained on alone; `thorough`, the best distinct
            candidates and LoRA are, and the known methods within the budget are trained from scratch. (As they stand in the supernet
            they have been candidates all along: see `SearchSettings.seed_known_methods`.)
        candidates: of `thorough`: the best distinct ones, and in the place of the last of several LoRA; see `first_rung`.
        learning_rates: peak rates that each of them is tried at.
        epochs: of each rung in turn; after each but the last, the better half of the trials goes on from where it is.
        scratch_epochs: the same of known methods trained from scratch, which are halved among themselves; empty: none are.
        teachers: best distinct candidates whose average, as they stand in the supernet, gives trials from slices half of what they
            learn, in all rungs but the last of several; 0: the labels are all.
        standing: best distinct candidates that are compared, and offered to the soup, as they stand in the supernet.
        afresh: whether the last of several rungs trains from scratch what the others have chosen, instead of on from where it is.
        cycles: stretches of the last of several rungs, of trials from slices: the mean of what they end with is what the rung ends with;
            see `TrainingSettings`.

    Raises:
        ConfigInvalid: a value is not accepted.
    """

    mode: str = "thorough"
    candidates: int = 2
    learning_rates: tuple[float, ...] = (3e-3,)
    epochs: tuple[int, ...] = (20, 225)
    scratch_epochs: tuple[int, ...] = (5, 15, 30)
    teachers: int = 5
    standing: int = 5
    cycles: int = 1
    afresh: bool = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigInvalid(f"finals mode {self.mode!r} is unknown; accepted: {', '.join(MODES)}")
        for name in ("candidates", "teachers", "standing"):
            check_whole(name, getattr(self, name), 0)
        check_whole("cycles", self.cycles, 1)
        for name in ("learning_rates", "epochs"):
            if not getattr(self, name):
                raise ConfigInvalid(f"{name} are {getattr(self, name)}; accepted are one or more")
        for rate in self.learning_rates:
            check_positive("a rate of learning_rates", rate)
        if len({f"{rate:g}" for rate in self.learning_rates}) < len(self.learning_rates):
            raise ConfigInvalid(f"learning_rates are {self.learning_rates}; accepted are numbers that differ in their first six digits")
        for name in ("epochs", "scratch_epochs"):
            for count in getattr(self, name):
                check_whole(f"a rung of {name}", count, 1)

    def rungs(self, sliced: bool) -> tuple[int, ...]:
        """Epochs of each rung, of trials from slices of the supernet or of those from scratch."""
        return self.epochs if sliced else self.scratch_epochs

    def taught(self, rung: int) -> bool:
        """Whether trials from slices are taught in a rung, counted from 1: in all but the last of several.

        Teaching helps while training is short, and holds back what is trained for long: see `docs/benchmarks.md`.
        """
        return bool(self.teachers) and (rung < len(self.epochs) or rung == 1)

    def cycles_of(self, rung: int) -> int:
        """Cycles of trials from slices in a rung, counted from 1: no more than it has epochs."""
        return min(self.cycles, self.epochs[rung - 1]) if self._last_of_several(rung) else 1

    def afresh_in(self, rung: int) -> bool:
        """Whether trials from slices start from scratch in a rung, counted from 1."""
        return self.afresh and self._last_of_several(rung)

    def _last_of_several(self, rung: int) -> bool:
        return 1 < rung == len(self.epochs)


@dataclass(frozen=True, slots=True)
class Trial:
    """One subnet trained alone in one way.

    Attributes:
        source: where the subnet comes from: `search #1`, …, or the name of a known method.
        config: the subnet.
        learning_rate: peak, in every rung; None of a subnet that is not trained alone.
        sliced: whether it starts from its slice of the supernet; else from scratch.
        teachers: subnets of the supernet that teach it; see `FinalsSettings`.
    """

    source: str
    config: SubnetConfig
    learning_rate: float | None
    sliced: bool
    teachers: tuple[SubnetConfig, ...] = ()

    @property
    def known(self) -> bool:
        """Whether it is a known method, wherever it starts from; else it comes from a search."""
        return self.source in METHODS

    @property
    def name(self) -> str:
        """What tells it from the other trials, such as `lora from scratch @ 0.003`."""
        if self.learning_rate is None:
            return f"{self.source} as it stands"
        return f"{self.source}{'' if self.sliced else ' from scratch'} @ {self.learning_rate:g}"


def first_rung(ranked: Sequence[Evaluated], settings: FinalsSettings, known: Mapping[str, SubnetConfig]) -> list[Trial]:
    """Every trial of the first rung, all from slices of the supernet.

    LoRA takes the place of the last of several candidates, unless it is one of them already: a supernet's scores favour what
    learns fast, and long training often favours LoRA.

    Args:
        ranked: the search's evaluated subnets, best first.
        known: known methods that are in the space and within the budget.
    """
    if settings.mode == "off":
        return []
    entering = entrants(ranked, 1 if settings.mode == "winner" else settings.candidates)
    if LORA in known and len(entering) > 1 and known[LORA] not in entering.values():
        entering.popitem()
        entering[LORA] = known[LORA]
    return _trials(entering, settings, sliced=True, teachers=tuple(distinct(ranked, settings.teachers)))


def from_scratch(known: Mapping[str, SubnetConfig], settings: FinalsSettings) -> list[Trial]:
    """The trials that owe the supernet nothing: known methods within the budget, in the space or not, by name."""
    return _trials(known, settings, sliced=False) if settings.mode == "thorough" and settings.scratch_epochs else []


def entrants(ranked: Sequence[Evaluated], count: int) -> dict[str, SubnetConfig]:
    """The best distinct subnets by their place in the search."""
    return {f"search #{place}": config for place, config in enumerate(distinct(ranked, count), 1)}


def _trials(
    subnets: Mapping[str, SubnetConfig], settings: FinalsSettings, *, sliced: bool, teachers: tuple[SubnetConfig, ...] = ()
) -> list[Trial]:
    rates = settings.learning_rates
    return [Trial(source, config, rate, sliced, teachers) for (source, config), rate in product(subnets.items(), rates)]


def survivors(trials: Sequence[Trial], fitness: Mapping[str, Evaluated]) -> list[Trial]:
    """The better half of a rung, rounded up, in their former order; a trial without fitness (it diverged) is out.

    Args:
        fitness: what each trial reached on val, by its name.
    """
    alive = [trial for trial in trials if trial.name in fitness]
    best = sorted(alive, key=lambda trial: (fitness[trial.name].order, trial.name))[: (len(alive) + 1) // 2]
    return [trial for trial in alive if trial in best]


def distinct(ranked: Sequence[Evaluated], count: int) -> list[SubnetConfig]:
    """The best subnets of which any two differ in at least 5 % of all choices; filled up with the best others if they are too few."""
    chosen: list[SubnetConfig] = []
    for candidate in ranked:
        if len(chosen) < count and all(_difference(candidate.config, other) >= DISTINCT for other in chosen):
            chosen.append(candidate.config)
    others = [candidate.config for candidate in ranked if candidate.config not in chosen]
    return chosen + others[: count - len(chosen)]


def _difference(first: SubnetConfig, second: SubnetConfig) -> float:
    """Share of all choices in which two subnets differ."""
    differing = sum(a[tensor] != b[tensor] for a, b in zip(first, second, strict=True) for tensor in TENSORS)
    return differing / (len(first) * len(TENSORS))
