"""When a study's trial is stopped, by Ray Tune's own successive halving."""

import random

from services.cluster.early_stopping import Halving
from services.store.study_progress import FITNESS, PROBE, Report


def halving() -> Halving:
    return Halving(grace_epochs=10, reduction_factor=2, epochs=100)


def probe(trial: int, epoch: int, loss: float) -> Report:
    return Report(trial, PROBE, epoch, loss)


def test_poor_trial_is_stopped_at_the_first_rung_and_is_told_why() -> None:
    rule = halving()

    assert rule.tell(probe(1, 10, 1.0)) is None
    why = rule.tell(probe(2, 10, 2.5))

    assert why is not None and "after epoch 10" in why and "2.5" in why and "1/2" in why


def test_no_trial_is_stopped_within_the_grace() -> None:
    rule = halving()

    assert [rule.tell(probe(trial, 9, loss)) for trial, loss in ((1, 1.0), (2, 9.0))] == [None, None]


def test_better_trial_goes_on_and_so_do_equal_ones() -> None:
    rule = halving()

    assert [rule.tell(probe(trial, 12, loss)) for trial, loss in ((1, 1.0), (2, 0.5), (3, 0.5))] == [None, None, None]


def test_trial_that_finishes_is_never_stopped_for_being_finished() -> None:
    assert halving().tell(probe(1, 100, 1.0)) is None


def test_fitness_of_a_search_stops_nothing() -> None:
    rule = halving()
    rule.tell(probe(1, 10, 1.0))

    assert rule.tell(Report(2, FITNESS, 10, -100.0)) is None


def test_halving_that_is_told_again_decides_as_the_first_one_did() -> None:
    draws = random.Random(7)
    reports = [probe(trial, epoch, draws.random() + trial / 10) for epoch in (10, 20, 40, 80) for trial in range(1, 9)]
    undisturbed = halving()
    decided = [undisturbed.tell(report) is None for report in reports]

    for cut in range(len(reports)):
        again = halving()
        for report in reports[:cut]:
            again.tell(report)
        assert [again.tell(report) is None for report in reports[cut:]] == decided[cut:]
    assert 4 < decided.count(False) < len(decided) - 8
