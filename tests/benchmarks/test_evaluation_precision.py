"""Evaluating in two precisions: each subnet is scored in both, and what is told of them is what was measured."""

from benchmarks.evaluation_precision import Measured, measure, told, trained
from glora_core.evaluation import Score, SubnetScorer
from glora_core.sampling import FeasibleSampler, stream


def made(accuracies, mixed, seconds=(0.2, 0.1)):
    def score(accuracy):
        return Score(accuracy, 1 - accuracy, 100, accuracy, accuracy)

    return [Measured((score(a), score(b)), seconds) for a, b in zip(accuracies, mixed, strict=True)]


def test_every_subnet_is_scored_in_both_precisions_in_their_order(task):
    data = task.source.load(task.spec, 0)
    supernet = trained(task, data, 3)
    sampler = FeasibleSampler(supernet.space, supernet.space.maximum)
    configs = [sampler.sample(stream(0, i)) for i in range(4)]
    found = measure(supernet, data, configs)
    scorers = [SubnetScorer(supernet, precision=precision) for precision in ("float32", "bfloat16")]
    assert [m.scores for m in found] == [tuple(scorer.score(config, data.val, 50) for scorer in scorers) for config in configs]
    assert all(seconds > 0 for m in found for seconds in m.seconds)


def test_an_order_that_is_kept_has_a_tau_of_one_and_one_that_is_turned_round_of_minus_one():
    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    same, turned = told(made(rising, rising), 100), told(made(rising, rising[::-1]), 100)
    assert "2.00 times as fast" in same[0]
    assert "tau 1.000" in same[1] and "tau -1.000" in turned[1]
    assert "5 are among the best 5" in same[2] and "has place 1 in float32" in same[2]
    assert "4 are among the best 5" in turned[2] and "has place 6 in float32" in turned[2]
    assert "30.00 images of 100 in the mean, 50 at most" in turned[3]
