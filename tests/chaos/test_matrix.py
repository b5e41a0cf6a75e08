"""The kill matrix: whatever is lost at whatever moment, the job ends as if nothing had happened, and leaves nothing behind."""

from collections.abc import Callable

import pytest

from tests.chaos import record
from tests.chaos.plan import Tour, choice_of_run, tours
from tests.chaos.system import System
from tests.chaos.trial import Played, play

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.postgres]


@pytest.mark.parametrize("tour", tours(choice_of_run()), ids=lambda tour: "+".join(cell.name for cell in tour))
def test_a_job_struck_by_faults_ends_as_one_left_alone(
    tour: Tour, system_for: Callable[[bool], System], reference: Callable[[System], Played]
) -> None:
    system = system_for(tour[0].fault.on_disk)
    alone = reference(system)
    assert alone.outcome.state == "succeeded", alone.outcome.failure

    for struck in play(system, tour):
        print(f"{struck.recoveries} s to recover, {struck.seconds:.1f} s in all instead of {alone.seconds:.1f}")
        if record.wanted():
            passed = struck.outcome == alone.outcome and not struck.twice and not struck.left
            for name in struck.struck:
                seconds = struck.recoveries.get(name)
                record.note("cells", name, {"recovery": round(seconds, 1)} if passed and seconds is not None else {"failed": True})
        assert struck.outcome.state == "succeeded", struck.outcome.failure
        assert struck.outcome == alone.outcome
        assert struck.twice == []
        assert struck.left == []
        assert struck.recoveries.keys() == set(struck.struck), "a strike came when the job was over"
