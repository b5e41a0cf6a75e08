"""The quality table in Markdown, made from the records there are; what is not done yet is left open."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from .methods import METHODS, Unavailable
from .runs import Records, Run
from .tuning import Case, standing

OPEN, NONE = "…", "–"
"""What stands where runs are still to be done, and where there is nothing to do."""


class Cell:
    """One method on one task: the runs of all seeds, and what tuning it took.

    Args:
        runs: one for each seed.
        tuned: all runs of its tuning.
        alone: what a run tells of one subnet, instead of the soup that it is part of.
    """

    def __init__(self, runs: Sequence[Run], tuned: Sequence[Run], records: Records, *, alone: bool = False) -> None:
        rate = f"{runs[0].rate:g}, {runs[0].epochs} epochs" if runs[0].epochs else ""
        self.chosen = ", ".join(filter(None, [runs[0].variant.label, rate]))
        self.records = [record for run in runs if (record := records.get(run)) is not None]
        if alone:
            self.records = [replace(r, **{name: r.detail["single"][name] for name in ("val", "test", "parameters")}) for r in self.records]
        self.failed = next((record.failed for record in self.records if record.failed), "")
        self.test = [100 * record.test for record in self.records]
        self.parameters = [record.parameters for record in self.records]
        self.cost = statistics.mean(record.cost for record in self.records)
        self.tuning = sum(record.cost for run in tuned if (record := records.get(run)) is not None)


def markdown(cases: Sequence[Case], records: Records, heading: str) -> str:
    """All of it: for each budget accuracy by method and task, then parameters and costs."""
    parts = [heading]
    for budget in dict.fromkeys(case.budget for case in cases):
        chosen = [case for case in cases if case.budget == budget]
        tasks = list(dict.fromkeys(case.task.name for case in chosen))
        sizes = {case.task.name: case.parameters for case in chosen}
        limits = "; ".join(f"{task} {sizes[task]:,}" for task in tasks)
        parts += [
            f"## Budget: {budget}",
            f"At most so many trained parameters, head not counted (full fine-tuning has no limit): {limits}.",
        ]
        parts += _budget(chosen, records, tasks)
    return "\n\n".join(parts) + "\n"


def _budget(cases: Sequence[Case], records: Records, tasks: Sequence[str]) -> list[str]:
    """The two tables of a budget, and why some methods are not in them."""
    found: dict[str, dict[str, Cell | None]] = {}
    notes = []
    for case in cases:
        try:
            for title, cell in _cells(case, records):
                found.setdefault(title, {})[case.task.name] = cell
        except Unavailable as reason:
            notes.append(f"{METHODS[case.method].title}, {case.task.name}: {reason}.")
    notes += [f"{title}, {t}: {cell.failed}." for title, row in found.items() for t, cell in row.items() if cell and cell.failed]
    accuracy = [[title, *(_accuracy(row[t]) if t in row else NONE for t in tasks), _mean(row, tasks)] for title, row in found.items()]
    costs = [[title, *(_spent(row[t]) if t in row else NONE for t in tasks)] for title, row in found.items()]
    return [
        "Test accuracy in %, mean ± standard deviation over seeds, of what was best on `val`:",
        _table(["method", *tasks, "mean over tasks"], accuracy),
        "What was chosen; trained parameters; thousands of training examples forward and backward, of that run / of all that tuned it:",
        _table(["method", *tasks], costs),
        *(["Not in the table: " + " ".join(notes)] if notes else []),
    ]


def _cells(case: Case, records: Records) -> list[tuple[str, Cell | None]]:
    """The cells of a case by the title of their row. Raises Unavailable."""
    title, state = METHODS[case.method].title, standing(case, records)
    if state.choice is None:
        return [(title, None)]
    tuned, choice = [run for run in state.asked if run.seed == 0], state.choice
    own = [run for run in tuned if run.epochs in (0, *case.epochs)]
    cells: list[tuple[str, Cell | None]] = [(title, Cell(choice.runs, own, records))]
    if METHODS[case.method].kind == "searched":
        cells.append((f"{title}, its best subnet alone", Cell(choice.runs, own, records, alone=True)))
    if choice.matched:
        cells.append((f"{title}, at our cost", Cell(choice.matched, tuned, records)))
    return cells


def _accuracy(cell: Cell | None) -> str:
    if cell is None:
        return OPEN
    return "failed" if cell.failed else _spread(cell.test)


def _mean(row: Mapping[str, Cell | None], tasks: Sequence[str]) -> str:
    """Mean over tasks, if all are there, and the standard deviation over seeds of that mean."""
    known = [cell for task in tasks if (cell := row.get(task)) is not None and not cell.failed]
    if len(known) < len(tasks):
        return NONE
    return _spread([statistics.mean(values) for values in zip(*(cell.test for cell in known), strict=True)])


def _spent(cell: Cell | None) -> str:
    if cell is None:
        return OPEN
    low, high = min(cell.parameters), max(cell.parameters)
    size = f"{low:,}" if low == high else f"{low:,}–{high:,}"
    spent = f"{cell.cost / 1000:.1f} / {cell.tuning / 1000:.1f}"
    return "failed" if cell.failed else "; ".join(filter(None, [cell.chosen, size, spent]))


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
