"""Soups: the average of merged subnets, taken up greedily, and only where it helps."""

import pytest
import torch

from glora_core.backbones import adapted_layers
from glora_core.evaluation import Score, SubnetScorer, score
from glora_core.finals import Leg, Trial, asked_for_soup, one_basin
from glora_core.finals.soup import best_soup, greedy_soup
from glora_core.presets import preset
from glora_core.sampling import FeasibleSampler, stream
from glora_core.search import Evaluated
from glora_core.supernet import Supernet


@pytest.fixture
def supernet(make_vit, space, randomise):
    return randomise(Supernet(make_vit(), space))


@pytest.fixture
def configs(space):
    sampler = FeasibleSampler(space, space.maximum)
    return [sampler.sample(stream(0, i)) for i in range(4)]


def makers(supernet, configs):
    return [lambda config=config: supernet.merged_state(config, torch.float64) for config in configs]


def judge(*scores):
    """Gives a network one score after another, whatever it is."""
    left = list(scores)
    return lambda network: Score(accuracy := left[0][0], left.pop(0)[1], 100, accuracy, accuracy)


def test_a_soup_is_the_average_of_its_members_rounded_once(supernet, configs):
    plain = supernet.bare()
    soup = greedy_soup(makers(supernet, configs[:3]), plain, judge((0.5, 1.0), (0.6, 1.0), (0.6, 0.9)))
    assert soup.members == (0, 1, 2)
    states = [supernet.merged_state(config, torch.float64) for config in configs[:3]]
    for name, value in plain.state_dict().items():
        wanted = sum(state[name] for state in states) / 3
        assert torch.equal(value, wanted.to(value.dtype)), name
        torch.testing.assert_close(soup.state[name], wanted, rtol=1e-15, atol=1e-15)


def test_a_member_that_makes_it_worse_is_left_out(supernet, configs):
    soup = greedy_soup(makers(supernet, configs), supernet.bare(), judge((0.5, 1.0), (0.4, 0.1), (0.5, 1.1), (0.5, 1.0)))
    assert soup.members == (0, 3)
    assert (soup.score.accuracy, soup.score.loss) == (0.5, 1.0)


def test_a_soup_of_one_is_that_subnet(supernet, configs, toy_split):
    plain = supernet.bare()
    soup = greedy_soup(makers(supernet, configs[:1]), plain, lambda network: score(network, toy_split, 10))
    assert soup.score == SubnetScorer(supernet).score(configs[0], toy_split, 10)


def test_the_network_holds_the_soup_and_not_the_last_attempt(supernet, configs, toy_split):
    plain = supernet.bare()
    soup = greedy_soup(makers(supernet, configs[:2]), plain, judge((0.5, 1.0), (0.1, 9.0)))
    images, _ = toy_split.take(torch.arange(4))
    assert soup.members == (0,)
    assert torch.equal(plain(images), SubnetScorer(supernet).load(configs[0])(images))


def test_the_average_of_all_is_taken_where_it_is_better_than_the_greedy_one(supernet, configs):
    plain = supernet.bare()
    soup = best_soup(makers(supernet, configs[:3]), plain, judge((0.5, 1.0), (0.4, 1.0), (0.3, 1.0), (0.6, 0.9)))
    assert (soup.members, soup.score.accuracy) == ((0, 1, 2), 0.6)
    states = [supernet.merged_state(config, torch.float64) for config in configs[:3]]
    assert all(torch.equal(value, (sum(s[name] for s in states) / 3).to(value.dtype)) for name, value in plain.state_dict().items())


def test_the_greedy_average_is_kept_where_that_of_all_is_no_better(supernet, configs, toy_split):
    plain = supernet.bare()
    soup = best_soup(makers(supernet, configs[:3]), plain, judge((0.5, 1.0), (0.4, 1.0), (0.5, 0.9), (0.5, 0.9)))
    assert soup.members == (0, 2)
    states = [supernet.merged_state(configs[i], torch.float64) for i in (0, 2)]
    assert all(torch.equal(value, (sum(s[name] for s in states) / 2).to(value.dtype)) for name, value in plain.state_dict().items())


def test_an_average_that_is_right_more_often_by_chance_is_told_by_its_loss(supernet, configs):
    scores = judge((0.5, 1.0), (0.6, 1.1), (0.4, 0.9), (0.6, 1.1))
    assert best_soup(makers(supernet, configs[:3]), supernet.bare(), scores).members == (0,)


def test_a_greedy_average_of_all_is_measured_once(supernet, configs):
    soup = best_soup(makers(supernet, configs[:2]), supernet.bare(), judge((0.5, 1.0), (0.6, 1.0)))
    assert soup.members == (0, 1)


class Reached:
    """A finalist that has reached so much on val."""

    def __init__(self, name, accuracy, loss, measure=None, sliced=True):
        self.leg = Leg(Trial(name, (), 0.1, sliced), 1, 1, 1)
        self.fitness = Evaluated((), accuracy, loss, 1, measure=measure)


@pytest.mark.parametrize(
    ("finalists", "asked"),
    [
        ([("a", 0.90, 1.0), ("b", 0.89, 0.5), ("c", 0.5, 0.1)], ["b", "c", "a"]),
        ([("a", 0.90, 1.0), ("b", 0.90, 0.5), ("lora", 0.90, 2.0, None, False)], ["b", "a"]),
        ([("a", 0.90, 1.0), ("b", 0.89, 0.5), ("lora", 0.90, 2.0, None, False)], ["a", "b"]),
        ([("a", 0.50, 1.0), ("lora", 0.90, 0.5, None, False), ("bitfit", 0.90, 0.6, None, False)], ["lora", "a"]),
        ([("a", 0.89, 0.5), ("lora", 0.90, 2.0)], ["lora", "a"]),
        ([("a", 0.5, 1.0, 0.8), ("b", 0.9, 0.5, 0.2)], ["a", "b"]),
        ([], []),
    ],
    ids=[
        "by loss after the winner",
        "known methods are left out",
        "none leads below a known method",
        "but one that wins",
        "nor below one from its slice",
        "by the metric",
        "none",
    ],
)
def test_a_soup_asks_the_winner_and_then_all_that_come_from_the_supernet(finalists, asked):
    given = [Reached(*finalist) for finalist in finalists]
    for order in (given, given[::-1]):
        assert [f.leg.trial.source for f in asked_for_soup(order, 200)] == asked


def test_a_soup_asks_each_trial_as_far_as_it_was_trained():
    short, long = Reached("a", 0.9, 0.5), Reached("a", 0.8, 0.6)
    long.leg = Leg(short.leg.trial, 2, 1, 2)
    out = Reached("b", 0.5, 2.0)
    assert asked_for_soup([short, long, out], 10**6) == [short, long, out]
    assert asked_for_soup([long, Reached("c", 0.95, 0.1), short, out], 10**6)[1:] == [long, out]


def test_beside_a_winner_of_a_later_rung_a_soup_asks_only_those_trained_as_long():
    short, long, other, standing = (Reached(name, accuracy, 1.0) for name, accuracy in (("a", 0.5), ("a", 0.9), ("b", 0.6), ("c", 0.8)))
    long.leg, other.leg = Leg(short.leg.trial, 2, 1, 2), Leg(other.leg.trial, 2, 1, 2)
    standing.leg = Leg(standing.leg.trial, 0, 0, 0)
    assert asked_for_soup([short, other, long, standing, Reached("d", 0.8, 0.1)], 10**6) == [long, other]
    scratch = Reached("lora", 0.95, 1.0, None, False)
    scratch.leg = Leg(scratch.leg.trial, 3, 1, 2)
    assert asked_for_soup([short, other, long, scratch], 10**6) == [scratch, long, other]


def test_the_average_of_a_basin_leaves_out_what_was_trained_from_scratch(supernet, configs):
    scores = judge((0.5, 1.0), (0.4, 1.0), (0.3, 1.0), (0.6, 0.9))
    soup = best_soup(makers(supernet, configs[:3]), supernet.bare(), scores, basin=[1, 2])
    assert (soup.members, soup.score.accuracy) == ((1, 2), 0.6)
    states = [supernet.merged_state(config, torch.float64) for config in configs[1:3]]
    assert all(torch.equal(value, sum(s[name] for s in states) / 2) for name, value in soup.state.items() if value.is_floating_point())
    assert one_basin([Reached("lora", 0.9, 0.5, None, False), Reached("a", 0.5, 1.0)]) == [1]


def test_whole_numbers_are_kept_as_they_are(make_model, randomise):

    model = make_model("mobilenetv2")
    supernet = randomise(Supernet(model, preset("paper", adapted_layers(model))))
    config = supernet.space.extreme(largest=True)
    soup = greedy_soup(makers(supernet, [config, config]), supernet.bare(), judge((0.5, 1.0), (0.5, 1.0)))
    merged = supernet.merged_state(config, torch.float64)
    assert soup.members == (0, 1)
    assert all(torch.equal(value, merged[name]) for name, value in soup.state.items() if not value.is_floating_point())
