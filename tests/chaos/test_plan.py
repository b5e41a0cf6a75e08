"""What runs where: all cells at some time, those of the schedulers always."""

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.moments import MOMENTS
from tests.chaos.plan import chosen_cells, every_cell


def test_three_runs_in_turn_have_every_cell_of_the_matrix() -> None:
    found = {cell.name for third in range(3) for cell in chosen_cells(str(third))}
    assert found == {cell.name for cell in every_cell()}
    assert len(found) == len(FAULTS) * len(MOMENTS)


@pytest.mark.parametrize("third", range(3))
def test_every_run_has_all_cells_of_the_schedulers_and_two_of_every_other_row(third: int) -> None:
    cells = chosen_cells(str(third))
    by_row = {fault.name: sum(cell.fault is fault for cell in cells) for fault in FAULTS}
    assert by_row.pop("scheduler") == len(MOMENTS)
    assert set(by_row.values()) == {2}
