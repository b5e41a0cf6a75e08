"""The kill matrix: whatever is lost at whatever moment, the job ends as if nothing had happened, and leaves nothing behind."""

from collections.abc import Callable

import pytest

from tests.chaos import record
from tests.chaos.plan import Cell, choice_of_run, chosen_cells
from tests.chaos.system import System
from tests.chaos.trial import Played, play

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.postgres]


@pytest.mark.parametrize("cell", chosen_cells(choice_of_run()), ids=lambda cell: cell.name)
def test_a_job_struck_by_a_fault_ends_as_one_left_alone(
    cell: Cell, system_for: Callable[[bool], System], reference: Callable[[bool], Played]
) -> None:
    system, alone = system_for(cell.fault.on_disk), reference(cell.fault.on_disk)
    assert alone.outcome.state == "succeeded", alone.outcome.failure

    struck = play(system, cell)
    print(f"{cell.name}: {struck.recovery} s to recover, {struck.seconds:.1f} s in all instead of {alone.seconds:.1f}")

    assert struck.outcome.state == "succeeded", struck.outcome.failure
    assert struck.outcome == alone.outcome
    assert struck.twice == []
    assert struck.left == []
    if record.wanted():
        record.note("cells", cell.name, struck.times() | {"alone": alone.seconds})
