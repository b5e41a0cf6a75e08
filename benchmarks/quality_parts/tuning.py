"""Which runs a method needs to be tuned on `val`, and what is chosen: pure functions of the records there are.

All methods are tuned alike, on the first seed: the best variant at the method's first rate and the shortest length; then rates in
steps of half a decade, up and down, until the best has a worse one on either side; then every other length at the best rate and at
the next lower one. The best on `val` is run with the other seeds. No test accuracy is looked at on the way.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from glora_core.effort import EFFORTS

from .methods import METHODS, Variant
from .runs import FORWARD, SCORING, Records, Run
from .searched import effort_of, forwards, passes
from .tasks import Task

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
EXPECTED_RATES = 3
_VAL = 200
"""Validation examples of every task."""


@dataclass(frozen=True)
class Effort:
    """How thoroughly methods are tuned.

    Args:
        lengths: epochs that are tried, shortest first, as the task's pace has them.
        seeds: runs of what is chosen; the first of them is tuned on.
        match: epochs that rivals are also given, or `ours`, as many as `standard` costs as a whole; none if None.
        rates: that are tried, lowest first; a method whose own first rate is not among them begins with the lowest.
    """

    lengths: tuple[int, ...] = (20, 40, 100)
    seeds: int = 3
    match: int | Literal["ours"] | None = None
    rates: tuple[float, ...] = RATES


@dataclass(frozen=True)
class Case:
    """One method on one task at one budget: a cell of the table, or two where it is also run at our cost."""

    task: Task
    method: str
    budget: str
    parameters: int
    effort: Effort

    def variants(self, seed: int) -> list[Variant]:
        """The method's variants. Raises Unavailable."""
        return METHODS[self.method].variants(self.task, self.parameters, seed)

    @property
    def epochs(self) -> list[int]:
        """The lengths that are tried on this task."""
        return [self.task.epochs(length) for length in self.effort.lengths]

    @property
    def at_our_cost(self) -> list[int]:
        """The length, if any, at which the method costs what our pipeline does."""
        match = self.effort.match
        if match is None or METHODS[self.method].kind != "peft":
            return []
        return [our_epochs(self.task) if match == "ours" else self.task.epochs(match)]


def our_epochs(task: Task) -> int:
    """Epochs of a single training that cost as much as `standard`: supernet, search and finals, known methods from scratch apart."""
    effort, size = EFFORTS["standard"], task.source.size
    return round((passes(effort, size) + FORWARD * forwards(effort, _VAL, size)) / size)


@dataclass(frozen=True)
class Choice:
    """What a case came to: the runs of every seed, and those at our cost."""

    runs: list[Run]
    matched: list[Run]


@dataclass(frozen=True)
class Standing:
    """How far a case is.

    Attributes:
        asked: all runs asked for so far, done or not.
        missing: those to be done next.
        choice: the outcome, once nothing is missing.
    """

    asked: list[Run]
    missing: list[Run]
    choice: Choice | None


def standing(case: Case, records: Records) -> Standing:
    """How far a case is. Raises Unavailable where the method does not exist."""
    steps, asked = _steps(case, records), dict[str, Run]()
    while True:
        try:
            batch = next(steps)
        except StopIteration as end:
            return Standing(list(asked.values()), [], end.value)
        asked |= {run.name: run for run in batch}
        missing = [run for run in batch if records.get(run) is None]
        if missing:
            return Standing(list(asked.values()), missing, None)


def first_runs(case: Case) -> list[Run]:
    """What a case begins with; cases that begin alike, such as BitFit at either budget, share all their runs. Raises Unavailable."""
    method = METHODS[case.method]
    if not method.tuned:
        return [Run(case.task, case.method, case.variants(0)[0], 0.0, 0, seed) for seed in range(case.effort.seeds)]
    rates = case.effort.rates
    rate = method.rate if method.rate in rates else rates[0]
    return [Run(case.task, case.method, variant, rate, case.epochs[0], 0) for variant in case.variants(0)]


def expected_passes(case: Case) -> float:
    """What a case will cost about, scores of `val` and `test` included, in passes forward and backward."""
    effort, size = case.effort, case.task.source.size
    if not METHODS[case.method].tuned:
        spent = effort_of(case.variants(0)[0].what["effort"])
        return effort.seeds * (passes(spent, size) + FORWARD * forwards(spent, _VAL, size) + SCORING)
    first, *longer = case.epochs
    epochs = [first] * (len(case.variants(0)) - 1 + EXPECTED_RATES) + 2 * longer + [case.epochs[-1]] * (effort.seeds - 1)
    epochs += case.at_our_cost * (1 + effort.seeds)
    return sum(epochs) * size + len(epochs) * SCORING


def _steps(case: Case, records: Records) -> Generator[list[Run], None, Choice]:
    """Batches of runs whose records are needed before it goes on; returns the choice."""
    firsts = first_runs(case)
    yield firsts
    if not METHODS[case.method].tuned:
        return Choice(firsts, [])
    rates = case.effort.rates
    tried = yield from _ladder(_best(firsts, records), rates, records)
    best = _best(tried, records)
    for epochs in case.epochs[1:]:
        longer = _at_length(best, epochs, rates)
        yield longer
        tried += longer
    chosen = _best(tried, records)
    runs = yield from _seeds(case, chosen)
    matched: list[Run] = []
    for epochs in case.at_our_cost:
        longest = _at_length(best, epochs, rates)
        yield longest
        matched = yield from _seeds(case, _best(longest, records))
    return Choice(runs, matched)


def _ladder(start: Run, rates: Sequence[float], records: Records) -> Generator[list[Run], None, list[Run]]:
    """Neighbouring rates of the best so far, until both have been tried."""
    tried = {start.rate: start}
    while True:
        place = rates.index(_best(list(tried.values()), records).rate)
        around = [rate for rate in rates[max(0, place - 1) : place + 2] if rate not in tried]
        if not around:
            return list(tried.values())
        tried |= {rate: replace(start, rate=rate) for rate in around}
        yield [tried[rate] for rate in around]


def _at_length(run: Run, epochs: int, rates: Sequence[float]) -> list[Run]:
    """A run at another length, at its rate and at the next lower one, which longer training may prefer."""
    place = rates.index(run.rate)
    return [replace(run, rate=rate, epochs=epochs) for rate in rates[max(0, place - 1) : place + 1]]


def _seeds(case: Case, chosen: Run) -> Generator[list[Run], None, list[Run]]:
    """What was chosen, with every seed; a variant that is drawn is drawn anew."""
    runs = [chosen]
    for seed in range(1, case.effort.seeds):
        variant = next(v for v in case.variants(seed) if v.label == chosen.variant.label)
        runs.append(replace(chosen, variant=variant, seed=seed))
    yield runs
    return runs


def _best(runs: list[Run], records: Records) -> Run:
    """The run that is best on `val`; all must have been done."""

    def order(run: Run) -> tuple[tuple[float, float], int, float]:
        record = records.get(run)
        assert record is not None
        return (record.order, run.epochs, run.rate)

    return min(runs, key=order)
