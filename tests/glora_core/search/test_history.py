"""The ranking of evaluated subnets: best first, with no tie left."""

import itertools

from glora_core.configs import config_hash, decode
from glora_core.search import Evaluated, rank


def evaluated(code: str, accuracy: float = 0.5, loss: float = 1.0, parameters: int = 10) -> Evaluated:
    return Evaluated(decode(code), accuracy, loss, parameters)


def test_ranking_is_by_accuracy_then_loss_then_parameters_then_hash():
    tied = sorted((evaluated("VNNNN", 0.4, 1.0, 9), evaluated("SNNNN", 0.4, 1.0, 9)), key=lambda e: config_hash(e.config))
    expected = [evaluated("NNNNN", 0.9, 3.0, 99), evaluated("NVNNN", 0.4, 0.5, 99), evaluated("NSNNN", 0.4, 1.0, 8), *tied]
    assert all(rank(order) == expected for order in itertools.permutations(expected))


def test_a_subnet_evaluated_twice_is_ranked_once():
    assert rank([evaluated("NNNNN"), evaluated("NNNNN")]) == [evaluated("NNNNN")]


def test_an_empty_history_ranks_to_nothing():
    assert rank([]) == []
