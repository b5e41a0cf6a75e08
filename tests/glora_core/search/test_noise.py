"""Re-ranking within the noise of the validation split."""

import math

import pytest

from glora_core.configs import LayerConfig, lora
from glora_core.search import Evaluated
from glora_core.search.noise import rank_within_noise, standard_error


def evaluated(accuracy, loss, parameters=10, rank=1):
    return Evaluated((LayerConfig(B=lora(rank)),), accuracy, loss, parameters)


def test_the_lower_loss_leads_among_accuracies_that_the_split_cannot_tell_apart():
    noisy, steady, far = evaluated(0.96, 0.3, rank=1), evaluated(0.95, 0.1, rank=2), evaluated(0.90, 0.05, rank=3)
    assert rank_within_noise([noisy, steady, far], 200) == [steady, noisy, far]


def test_with_enough_examples_accuracy_decides():
    first, second = evaluated(0.96, 0.3, rank=1), evaluated(0.95, 0.1, rank=2)
    assert rank_within_noise([second, first], 10_000) == [first, second]


def test_equal_losses_go_to_fewer_parameters():
    large, small = evaluated(0.96, 0.1, 20, rank=1), evaluated(0.955, 0.1, 10, rank=2)
    assert rank_within_noise([large, small], 200) == [small, large]


def test_none_below_the_floor_is_moved_up():
    known, other = evaluated(0.96, 0.3, rank=1), evaluated(0.95, 0.1, rank=2)
    assert rank_within_noise([known, other], 200, floor=0.96) == [known, other]


def test_nothing_is_lost_or_doubled():
    history = [evaluated(0.9 - 0.003 * i, 0.1 * (i % 7), rank=i + 1) for i in range(30)]
    found = rank_within_noise(history + history, 200)
    assert sorted(e.accuracy for e in found) == sorted(e.accuracy for e in history)
    assert rank_within_noise([], 200) == []


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.95, 1.0])
def test_the_standard_error_is_that_of_a_share_and_never_zero(accuracy):
    plain = math.sqrt(accuracy * (1 - accuracy) / 200)
    assert standard_error(accuracy, 200) > 0
    assert abs(standard_error(accuracy, 200) - plain) < 0.008
    assert standard_error(accuracy, 20_000) < standard_error(accuracy, 200)
