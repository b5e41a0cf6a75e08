"""What follows from how long evaluations take."""

import pytest

from services.cluster.pace import HUNG_UNKNOWN_SECONDS, Pace


def test_first_batches_are_single_evaluations() -> None:
    assert Pace().batch(waiting=1000, evaluators=2) == 1


@pytest.mark.parametrize(
    ("seconds", "waiting", "evaluators", "size"),
    [
        (0.1, 40, 2, 10),  # half of an evaluator's share
        (0.1, 4000, 2, 20),  # no longer than two seconds
        (10.0, 40, 2, 1),  # never less than one
        (1e-6, 50, 2, 25),  # handing out costs more than the work: the whole share
        (0.1, 1, 8, 1),
    ],
)
def test_batch_is_a_part_of_the_share_that_takes_neither_too_short_nor_too_long(
    seconds: float, waiting: int, evaluators: int, size: int
) -> None:
    assert Pace(seconds).batch(waiting, evaluators) == size


def test_pace_follows_what_is_measured() -> None:
    pace = Pace()
    pace.measured(evaluations=2, seconds=1.0)
    assert pace.seconds == 0.5
    for _ in range(50):
        pace.measured(evaluations=10, seconds=1.0)
    assert pace.seconds == pytest.approx(0.1)


@pytest.mark.parametrize(("seconds", "late"), [(39.0, False), (41.0, True)])
def test_batch_is_late_after_four_times_what_it_should_take(seconds: float, late: bool) -> None:
    assert Pace(1.0).late(10, seconds) is late


def test_nothing_is_late_before_anything_is_measured() -> None:
    assert not Pace().late(1, 1e9)


@pytest.mark.parametrize(
    ("pace", "evaluations", "least"), [(Pace(0.001), 10, 30.0), (Pace(1.0), 10, 200.0), (Pace(), 1, HUNG_UNKNOWN_SECONDS)]
)
def test_evaluator_is_lost_after_much_longer(pace: Pace, evaluations: int, least: float) -> None:
    assert not pace.hung(evaluations, least - 0.1)
    assert pace.hung(evaluations, least + 0.1)
