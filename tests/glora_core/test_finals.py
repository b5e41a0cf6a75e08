"""Finals: who enters, who goes on, and that neither depends on the order in which trials were done."""

import random

import pytest

from glora_core.configs import LayerConfig, lora
from glora_core.errors import ConfigInvalid
from glora_core.finals import FinalsSettings, Trial, distinct, first_rung, from_scratch, survivors
from glora_core.search import Evaluated, rank

LAYERS = 4


def subnet(*ranks):
    """A subnet that differs from another in as many layers as their ranks differ."""
    return tuple(LayerConfig(B=lora(rank)) for rank in ranks)


def evaluated(config, accuracy, loss=1.0, parameters=10):
    return Evaluated(config, accuracy, loss, parameters)


RANKED = rank(evaluated(subnet(i + 1, i // 2 + 1, 1, 1), 0.9 - 0.01 * i) for i in range(6))
KNOWN = {"bitfit": subnet(9, 9, 9, 9), "lora": subnet(8, 8, 8, 8)}


def test_off_has_no_trials():
    assert first_rung(RANKED, KNOWN, FinalsSettings("off")) == []


def test_winner_trains_the_best_candidate_alone_at_every_rate():
    trials = first_rung(RANKED, KNOWN, FinalsSettings("winner", candidates=3, learning_rates=(1e-3, 1e-2)))
    assert [(t.source, t.config, t.learning_rate, t.sliced) for t in trials] == [
        ("search #1", RANKED[0].config, 1e-3, True),
        ("search #1", RANKED[0].config, 1e-2, True),
    ]


def test_thorough_trains_candidates_from_their_slice_and_known_methods_also_from_scratch():
    settings = FinalsSettings(candidates=2, learning_rates=(1e-3, 3e-3))
    trials, scratch = first_rung(RANKED, KNOWN, settings), from_scratch(KNOWN, settings)
    assert list(dict.fromkeys(trial.source for trial in trials)) == ["search #1", "search #2", "bitfit", "lora"]
    assert all(trial.sliced for trial in trials)
    assert [(trial.source, trial.learning_rate, trial.sliced) for trial in scratch] == [
        ("bitfit", 1e-3, False),
        ("bitfit", 3e-3, False),
        ("lora", 1e-3, False),
        ("lora", 3e-3, False),
    ]
    assert len({trial.name for trial in trials + scratch}) == len(trials) + len(scratch)


def test_a_known_method_that_the_search_found_enters_once():
    trials = first_rung(rank([evaluated(KNOWN["lora"], 0.95), *RANKED]), KNOWN, FinalsSettings(candidates=1, learning_rates=(1e-3,)))
    assert [trial.source for trial in trials] == ["search #1", "bitfit"]


@pytest.mark.parametrize("mode", ["off", "winner"])
def test_only_thorough_finals_train_from_scratch(mode):
    assert from_scratch(KNOWN, FinalsSettings(mode)) == []


def test_distinct_candidates_differ_in_a_twentieth_of_all_choices():
    near = [evaluated(subnet(*([2] * 20), 1), 0.9), evaluated(subnet(*([2] * 21)), 0.8), evaluated(subnet(*([3] * 21)), 0.7)]
    assert distinct(rank(near), 2) == [near[0].config, near[2].config]


def test_too_few_distinct_candidates_are_filled_up_with_the_best_others():
    near = rank(evaluated(subnet(*([2] * 20), 1 + i), 0.9 - 0.1 * i) for i in range(4))
    assert distinct(near, 3) == [e.config for e in near[:3]]
    assert distinct(near, 9) == [e.config for e in near]


def test_the_better_half_goes_on_whatever_the_order_in_which_trials_were_done():
    trials = [Trial(f"search #{i}", subnet(i + 1), rate, True) for i in range(3) for rate in (1e-3, 1e-2)]
    fitness = {t.name: evaluated(t.config, 0.5 + 0.1 * (i % 4)) for i, t in enumerate(trials)}
    expected = survivors(trials, fitness)
    assert len(expected) == 3
    assert min(fitness[t.name].accuracy for t in expected) >= max(fitness[t.name].accuracy for t in trials if t not in expected)
    for seed in range(10):
        shuffled = dict(random.Random(seed).sample(list(fitness.items()), len(fitness)))
        assert survivors(trials, shuffled) == expected
        assert set(survivors(random.Random(seed).sample(trials, len(trials)), fitness)) == set(expected)


def test_ties_go_to_the_lower_loss_and_never_to_chance():
    trials = [Trial("a", subnet(1), 1e-3, True), Trial("b", subnet(2), 1e-3, True)]
    fitness = {trials[0].name: evaluated(subnet(1), 0.9, loss=0.5), trials[1].name: evaluated(subnet(2), 0.9, loss=0.4)}
    assert survivors(trials, fitness) == [trials[1]]


def test_the_same_subnet_at_two_rates_that_ties_in_everything_is_told_apart_by_name():
    trials = [Trial("a", subnet(1), rate, True) for rate in (1e-2, 1e-3)]
    fitness = {trial.name: evaluated(trial.config, 0.9) for trial in trials}
    assert survivors(trials, fitness) == survivors(trials[::-1], fitness)


def test_a_trial_that_diverged_is_out():
    trials = [Trial("a", subnet(1), 1e-3, True), Trial("b", subnet(2), 1e-3, True)]
    assert survivors(trials, {"b @ 0.001": evaluated(subnet(2), 0.1)}) == [trials[1]]
    assert survivors(trials, {}) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "some"}, "finals mode 'some' is unknown; accepted: off, winner, thorough"),
        ({"candidates": -1}, "candidates is -1"),
        ({"learning_rates": ()}, "learning_rates are"),
        ({"learning_rates": (0.0,)}, "above 0"),
        ({"learning_rates": (0.1, 0.10000001)}, "differ in their first six digits"),
        ({"epochs": ()}, "epochs are"),
        ({"epochs": (10, 0)}, "integers from 1"),
        ({"scratch_epochs": 0}, "scratch_epochs 0"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_by_name(changes, message):
    with pytest.raises(ConfigInvalid, match=message):
        FinalsSettings(**changes)
