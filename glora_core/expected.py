"""How long a job will take: what its phases have to do, from a measured speed. Plain Python, no torch.

An estimate for people, told before anything starts; nothing that is decided depends on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from glora_core.finals.plan import FinalsSettings
from glora_core.finals.rungs import halved
from glora_core.search.settings import SearchSettings
from glora_core.training.settings import TrainingSettings

PROBED = 8 * 5
"""Subnets scored along the training of a supernet, on up to `PROBE_EXAMPLES` each."""
PROBE_EXAMPLES = 100
TAUGHT = 1.4
"""What a training step costs with a teacher's forward pass, in steps without."""
START = 5.0
"""Seconds until the processes of a phase, or of a rung of the finals, have started (docs/benchmarks.md)."""


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of some work on so many examples: `fixed + example * count`."""

    fixed: float
    example: float

    def at(self, examples: float) -> float:
        """Seconds for so many examples."""
        return self.fixed + self.example * examples

    @classmethod
    def through(cls, few: tuple[int, float], more: tuple[int, float] | None = None) -> "Line":
        """Through one measurement (examples, seconds), as if nothing were fixed, or two, neither part below zero."""
        count, seconds = few
        if more is None or more[0] <= count:
            return cls(0.0, seconds / count)
        slope = min(max((more[1] - seconds) / (more[0] - count), 0.0), more[1] / more[0])
        return cls(max(seconds - slope * count, 0.0), slope)


@dataclass(frozen=True, slots=True)
class Speed:
    """What one process with its CPU or GPU needs.

    Attributes:
        step: a training step of the supernet, all its subnets together.
        score: merging a subnet and scoring it.
    """

    step: Line
    score: Line

    def to_dict(self) -> dict[str, float]:
        """Plain JSON types."""
        return {
            "step_fixed": self.step.fixed,
            "step_example": self.step.example,
            "score_fixed": self.score.fixed,
            "score_example": self.score.example,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, float]) -> "Speed":
        """What `to_dict` gave."""
        return cls(Line(stored["step_fixed"], stored["step_example"]), Line(stored["score_fixed"], stored["score_example"]))


@dataclass(frozen=True, slots=True)
class Work:
    """What a job has to do.

    Attributes:
        training: of its supernet.
        search: settings; `generations` those that are left.
        finals: settings.
        train, val, test: examples of the splits; `test` those of all test sets.
        known: methods trained from scratch in the finals.
        workers, evaluators, slots: processes of the training, of the search and of a rung of the finals at the same time.
        scored: models that are scored on test.
        retrained: whether the winner is trained once more, on train and val together.
    """

    training: TrainingSettings
    search: SearchSettings
    finals: FinalsSettings
    train: int
    val: int
    test: int
    known: int
    workers: int
    evaluators: int
    slots: int
    scored: int = 1
    retrained: bool = False


def expected(work: Work, speed: Speed) -> dict[str, float]:
    """Seconds of each phase: `supernet`, `search`, `finals` and `export`."""
    return {
        "supernet": _supernet(work, speed),
        "search": _search(work, speed),
        "finals": _finals(work, speed),
        "export": _export(work, speed),
    }


def _supernet(work: Work, speed: Speed) -> float:
    steps, each = _steps(work)
    probes = PROBED * speed.score.at(min(work.val, PROBE_EXAMPLES))
    return START + probes + work.training.epochs * steps * speed.step.at(each / work.workers)


def _steps(work: Work) -> tuple[int, float]:
    """Steps of an epoch, and examples of each on average."""
    steps = -(-work.train // work.training.batch_of(work.train))
    return steps, work.train / steps


def _search(work: Work, speed: Speed) -> float:
    rounds = -(-work.search.population // work.evaluators)
    return (START + work.search.generations * rounds * speed.score.at(work.val)) if work.search.generations else 0.0


def _finals(work: Work, speed: Speed) -> float:
    """Rung after rung, each as long as its trials take on the processes there are."""
    settings, rates = work.finals, len(work.finals.learning_rates)
    sliced = {"off": 0, "winner": 1, "thorough": settings.candidates}[settings.mode] * rates
    rungs = zip_longest(_rungs(settings.epochs, sliced), _rungs(settings.scratch_epochs, work.known * rates), fillvalue=(0, 0))
    total = again = 0.0
    for rung, ((epochs, count), (scratch_epochs, scratch_count)) in enumerate(rungs, 1):
        own = _alone(work, speed, epochs) * (TAUGHT if settings.taught(rung) else 1.0)
        again += own
        trials = [own] * count + [_alone(work, speed, scratch_epochs)] * scratch_count
        total += START + _parallel(trials, work.slots) if trials else 0.0
    return total + (START + again if work.retrained else 0.0)


def _rungs(epochs: Sequence[int], trials: int) -> list[tuple[int, int]]:
    """Epochs and trials of each rung."""
    return list(zip(epochs, halved(trials, len(epochs)), strict=True))


def _alone(work: Work, speed: Speed, epochs: int) -> float:
    """A subnet trained alone, and scored on val."""
    steps, each = _steps(work)
    subnets = {"random": 0, "sandwich": 1, "full-sandwich": 2}.get(work.training.policy, 0) + work.training.subnets
    return epochs * steps * speed.step.at(each) / subnets + speed.score.at(work.val)


def _parallel(seconds: list[float], slots: int) -> float:
    """How long pieces of work take on so many processes, the longest first."""
    busy = [0.0] * slots
    for piece in sorted(seconds, reverse=True):
        busy[busy.index(min(busy))] += piece
    return max(busy)


def _export(work: Work, speed: Speed) -> float:
    return START + work.scored * speed.score.at(work.test)


def about(seconds: float) -> str:
    """Such as `about 12 min`."""
    unit, size, form = _unit(seconds)
    return f"about {format(seconds / size, form)} {unit}"


def in_words(phases: Mapping[str, float]) -> str:
    """Such as `about 12 min (supernet 5, search 2, finals 5)`; what is too short to be seen in that unit is left out."""
    total = sum(phases.values())
    _, size, form = _unit(total)
    parts = {name: format(seconds / size, form) for name, seconds in phases.items()}
    named = ", ".join(f"{name} {value}" for name, value in parts.items() if float(value))
    return about(total) + (f" ({named})" if named else "")


def _unit(seconds: float) -> tuple[str, float, str]:
    """A unit that suits a span, its seconds, and a format for numbers of it."""
    if seconds < 90:
        return "s", 1.0, ".0f"
    return ("min", 60.0, ".0f") if seconds < 5400 else ("h", 3600.0, ".1f")
