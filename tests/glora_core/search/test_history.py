"""The ranking and the aging of evaluated subnets: no tie left, and no trace of the order in which they were given."""

import itertools
from dataclasses import replace

from glora_core.configs import config_hash, decode
from glora_core.search import Evaluated, rank
from glora_core.search.generation import by_age


def evaluated(code: str, accuracy: float = 0.5, loss: float = 1.0, parameters: int = 10, generation: int = 0) -> Evaluated:
    return Evaluated(decode(code), accuracy, loss, parameters, generation)


def test_ranking_is_by_accuracy_then_loss_then_parameters_then_hash():
    tied = sorted((evaluated("VNNNN", 0.4, 1.0, 9), evaluated("SNNNN", 0.4, 1.0, 9)), key=lambda e: config_hash(e.config))
    expected = [evaluated("NNNNN", 0.9, 3.0, 99), evaluated("NVNNN", 0.4, 0.5, 99), evaluated("NSNNN", 0.4, 1.0, 8), *tied]
    assert all(rank(order) == expected for order in itertools.permutations(expected))


def test_a_subnet_evaluated_twice_is_ranked_once():
    assert rank([evaluated("NNNNN"), evaluated("NNNNN")]) == [evaluated("NNNNN")]


def test_an_empty_history_ranks_to_nothing():
    assert rank([]) == []


def test_age_is_by_generation_then_hash_whatever_the_order_given():
    young = sorted((evaluated("VNNNN", generation=2), evaluated("SNNNN", generation=2)), key=lambda e: config_hash(e.config))
    expected = (evaluated("NNNNN", generation=0), evaluated("NVNNN", generation=1), *young)
    assert all(by_age(order) == expected for order in itertools.permutations(expected))


def test_a_subnet_proposed_again_is_as_old_as_when_it_was_proposed_first():
    first, again = evaluated("NNNNN", generation=1), evaluated("NNNNN", generation=3)
    assert by_age([again, first]) == by_age([first, again]) == (first,)


def test_another_metric_than_accuracy_ranks_where_it_was_measured():
    first, second = replace(evaluated("NNNNN", 0.4), measure=0.9), replace(evaluated("VNNNN", 0.9), measure=0.4)
    assert rank([second, first]) == [first, second]
    assert (first.fitness, evaluated("NNNNN", 0.4).fitness) == (0.9, 0.4)
