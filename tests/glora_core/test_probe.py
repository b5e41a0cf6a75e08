"""Probes: fixed subnets scored along a training, which change nothing in it and end one that does not learn."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from glora_core.errors import NotLearning
from glora_core.evaluation import SubnetScorer
from glora_core.supernet import Supernet
from glora_core.training import Probe, Trainer, TrainingSettings
from glora_core.training.probe import check_learning


@pytest.fixture
def train(make_vit, space, toy_split):
    """Train with a probe or without; returns the supernet and every epoch's report."""

    def run(probed=True, budget=None, reports=None, **changes):
        supernet = Supernet(make_vit(), space)
        settings = TrainingSettings(**({"epochs": 8, "batch_size": 10, "policy": "sandwich", "learning_rate": 1e-2} | changes))
        probe = Probe.of(supernet, toy_split, settings.epochs, budget=budget) if probed else None
        reports = [] if reports is None else reports
        Trainer(supernet, toy_split, settings, probe).fit(reports.append)
        return supernet, reports

    return run


def test_a_probe_scores_smallest_largest_lora_and_random_subnets(train):
    _, reports = train()
    assert list(reports[-1].probe) == ["smallest", "largest", "lora", "random 1", "random 2"]
    assert all(0 <= accuracy <= 1 for report in reports for accuracy in report.probe.values())


def test_a_probe_scores_what_the_merged_subnet_scores(train, space, toy_split):
    supernet, reports = train()
    scorer = SubnetScorer(supernet)
    assert reports[-1].probe["largest"] == scorer.score(space.extreme(largest=True), toy_split, 10).accuracy
    assert reports[-1].probe["smallest"] == scorer.score(space.extreme(largest=False), toy_split, 10).accuracy


def test_a_probe_changes_nothing_in_the_training(train):
    (first, with_probe), (second, without) = train(), train(probed=False)
    assert [report.loss for report in with_probe] == [report.loss for report in without]
    assert all(torch.equal(a, b) for a, b in zip(first.trainable_state().values(), second.trainable_state().values(), strict=True))


def test_probes_come_eight_times_and_after_the_last_epoch(train):
    _, reports = train(epochs=17, learning_rate=1e-3)
    assert [report.epoch for report in reports if report.probe] == [2, 4, 6, 8, 10, 12, 14, 16, 17]


def test_a_probe_within_a_budget_asks_for_no_larger_subnet_but_the_largest(make_vit, space, toy_split):
    budget = space.minimum + (space.maximum - space.minimum) // 10
    probe = Probe.of(Supernet(make_vit(), space), toy_split, 8, budget=budget)
    assert [name for name, config in probe.subnets.items() if space.parameters(config) > budget] == ["largest"]


def test_a_supernet_that_does_not_learn_ends_half_way_and_not_before(train):
    reports = []
    with pytest.raises(NotLearning, match=r"half the training is over.*guessing costs 1\.099"):
        train(reports=reports, epochs=80, learning_rate=1e-9, weight_decay=0.0)
    assert len(reports) == 39


def test_a_training_of_few_steps_is_not_judged(train):
    assert len(train(learning_rate=1e-9, weight_decay=0.0)[1]) == 8


@pytest.mark.parametrize(
    ("loss", "accuracy", "ends"), [(1.09, 0.34, True), (1.09, 0.9, False), (0.9, 0.34, False), (0.5, 1.0, False)], ids=str
)
def test_it_takes_both_a_loss_of_guessing_and_answers_of_guessing(make_vit, space, toy_split, loss, accuracy, ends):
    probe = Probe.of(Supernet(make_vit(), space), toy_split, 8)
    if not ends:
        return check_learning(loss, toy_split.labels, probe, {"largest": accuracy}, 0.0, 3)
    with pytest.raises(NotLearning):
        check_learning(loss, toy_split.labels, probe, {"largest": accuracy, "smallest": 0.1}, 0.0, 3)


@pytest.mark.parametrize(
    ("frequent", "loss", "accuracy", "ends"), [(24, 0.6, 0.8, False), (24, 0.76, 0.8, True), (29, 0.76, 1.0, False)], ids=str
)
def test_smoothed_labels_cost_more_to_guess_and_whoever_knows_them_all_goes_on(make_vit, space, toy_split, frequent, loss, accuracy, ends):
    split = replace(toy_split, labels=(torch.arange(30) >= frequent).long())
    probe = Probe.of(Supernet(make_vit(), space), split, 8)
    with pytest.raises(NotLearning, match=r"guessing costs 0\.762") if ends else nullcontext():
        check_learning(loss, split.labels, probe, {"largest": accuracy}, 0.2, 3)
