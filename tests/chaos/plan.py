"""Which cells of the matrix a run has: all of them, every cell of the schedulers and a twelfth of the rest, or rows by their names."""

import os
from dataclasses import dataclass
from itertools import groupby

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.moments import MOMENTS, Moment

PARTS = 12
_ALWAYS = ("scheduler",)


@dataclass(frozen=True)
class Cell:
    """One fault at one moment."""

    fault: Fault
    moment: Moment

    @property
    def name(self) -> str:
        """What it is called in tests and records."""
        return f"{self.fault.name}-{self.moment.name}"


Tour = tuple[Cell, ...]
"""Cells that strike one job, in the order of its moments."""


def every_cell() -> list[Cell]:
    """The whole matrix, those on the small disk last."""
    return [Cell(fault, moment) for fault in sorted(FAULTS, key=lambda fault: fault.on_disk) for moment in MOMENTS]


def chosen_cells(choice: str) -> list[Cell]:
    """The cells of a run.

    Args:
        choice: `all`; names of rows, with commas between them; or `0` to `11`: every cell of the schedulers, and this twelfth of the
            others: in each row of one half of them one column, another one from row to row.

    Raises:
        ValueError: no row has that name.
    """
    if choice == "all":
        return every_cell()
    if not choice.isdigit():
        wanted = {name.strip() for name in choice.split(",")}
        if unknown := wanted - {fault.name for fault in FAULTS}:
            raise ValueError(f"GLORA_CHAOS: no row {sorted(unknown)}; there are {', '.join(fault.name for fault in FAULTS)}")
        return [cell for cell in every_cell() if cell.fault.name in wanted]
    rows, columns = [fault.name for fault in FAULTS], [moment.name for moment in MOMENTS]
    half, column = divmod(int(choice) % PARTS, len(columns))

    def taken(cell: Cell) -> bool:
        row = rows.index(cell.fault.name)
        diagonal = row + columns.index(cell.moment.name)
        return cell.fault.name in _ALWAYS or (row * 2 // len(rows) == half and diagonal % len(columns) == column)

    return [cell for cell in every_cell() if taken(cell)]


def tours(choice: str) -> list[Tour]:
    """The cells of a run, by the job that they strike: each a job of its own for `all`, else as few jobs as there can be.

    A job is struck once at a moment, since where it is afterwards depends on what was struck. Those of the schedulers share one job,
    and so do those of any row that is asked for by its name.
    """
    if choice == "all":
        return [(cell,) for cell in every_cell()]
    if not choice.isdigit():
        rows = groupby(chosen_cells(choice), key=lambda cell: cell.fault.name)
        return [tuple(cells) for _, cells in rows]
    found: list[list[Cell]] = []
    for cell in chosen_cells(choice):
        fitting = (tour for tour in found if _goes_with(cell, tour))
        tour = next(fitting, None)
        if tour is None:
            found.append([cell])
        else:
            tour.append(cell)
    return [tuple(sorted(tour, key=lambda cell: MOMENTS.index(cell.moment))) for tour in found]


def _goes_with(cell: Cell, tour: list[Cell]) -> bool:
    first = tour[0].fault
    alike = cell.fault.on_disk == first.on_disk and (cell.fault.name in _ALWAYS) == (first.name in _ALWAYS)
    return alike and all(cell.moment is not other.moment for other in tour)


def choice_of_run() -> str:
    """`GLORA_CHAOS` if it is set, else the cells of the schedulers."""
    return os.environ.get("GLORA_CHAOS") or ",".join(_ALWAYS)
