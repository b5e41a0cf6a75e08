"""What runs where: all cells at some time, those of the schedulers always."""

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.moments import MOMENTS
from tests.chaos.plan import PARTS, chosen_cells, every_cell, tours


def test_as_many_runs_in_turn_have_every_cell_of_the_matrix() -> None:
    found = {cell.name for part in range(PARTS) for cell in chosen_cells(str(part))}
    assert found == {cell.name for cell in every_cell()}
    assert len(found) == len(FAULTS) * len(MOMENTS)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_run_has_all_cells_of_the_schedulers_and_one_of_every_second_row(part: int) -> None:
    cells = chosen_cells(str(part))
    by_row = {fault.name: sum(cell.fault is fault for cell in cells) for fault in FAULTS}
    assert by_row.pop("scheduler") == len(MOMENTS)
    assert sorted(by_row.values()) == [0] * 5 + [1] * 5


@pytest.mark.parametrize("choice", ["0", "3", "11", "scheduler", "objects,node", "all"])
def test_tours_have_every_chosen_cell_once_and_strike_no_job_twice_at_a_moment(choice: str) -> None:
    found = tours(choice)
    assert sorted(cell.name for tour in found for cell in tour) == sorted(cell.name for cell in chosen_cells(choice))
    for tour in found:
        order = [MOMENTS.index(cell.moment) for cell in tour]
        assert order == sorted(set(order))
        assert len({cell.fault.on_disk for cell in tour}) == 1


@pytest.mark.parametrize("part", range(PARTS))
def test_a_part_takes_few_jobs(part: int) -> None:
    assert len(tours(str(part))) <= 3


def test_a_row_asked_for_by_its_name_strikes_one_job_at_every_moment() -> None:
    (tour,) = tours("database-cut")
    assert [cell.moment for cell in tour] == list(MOMENTS)


def test_an_unknown_row_is_refused_with_the_rows_that_there_are() -> None:
    with pytest.raises(ValueError, match="objects"):
        tours("object-store")
