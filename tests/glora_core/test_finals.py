"""Finals: who enters, who goes on, and that neither depends on the order in which trials were done."""

import random
from dataclasses import dataclass

import pytest

from glora_core.configs import LayerConfig, lora
from glora_core.errors import ConfigInvalid
from glora_core.finals import (
    FinalsSettings,
    Leg,
    Trial,
    distinct,
    epochs_of_all,
    first_rung,
    from_scratch,
    rank_finalists,
    survivors,
    way,
)
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
    assert first_rung(RANKED, FinalsSettings("off"), KNOWN) == []


def test_winner_trains_the_best_candidate_alone_at_every_rate():
    trials = first_rung(RANKED, FinalsSettings("winner", candidates=3, learning_rates=(1e-3, 1e-2)), KNOWN)
    assert [(t.source, t.config, t.learning_rate, t.sliced) for t in trials] == [
        ("search #1", RANKED[0].config, 1e-3, True),
        ("search #1", RANKED[0].config, 1e-2, True),
    ]


def test_thorough_trains_candidates_from_their_slice_and_known_methods_from_scratch():
    settings = FinalsSettings(candidates=3, learning_rates=(1e-3, 3e-3))
    trials, scratch = first_rung(RANKED, settings, KNOWN), from_scratch(KNOWN, settings)
    assert list(dict.fromkeys(trial.source for trial in trials)) == ["search #1", "search #2", "lora"]
    assert all(trial.sliced for trial in trials)
    assert [(trial.source, trial.learning_rate, trial.sliced) for trial in scratch] == [
        ("bitfit", 1e-3, False),
        ("bitfit", 3e-3, False),
        ("lora", 1e-3, False),
        ("lora", 3e-3, False),
    ]
    assert len({trial.name for trial in trials + scratch}) == len(trials) + len(scratch)


@pytest.mark.parametrize(
    ("candidates", "known", "sources"),
    [
        (1, KNOWN, ["search #1"]),
        (2, KNOWN, ["search #1", "lora"]),
        (2, {"bitfit": KNOWN["bitfit"]}, ["search #1", "search #2"]),
        (2, {"lora": RANKED[0].config}, ["search #1", "search #2"]),
        (2, {"lora": RANKED[1].config}, ["search #1", "search #2"]),
    ],
    ids=["one", "several", "no LoRA within the budget", "LoRA is the best", "LoRA is the last"],
)
def test_lora_takes_the_place_of_the_last_candidate_unless_it_is_one(candidates, known, sources):
    trials = first_rung(RANKED, FinalsSettings(candidates=candidates, learning_rates=(1e-3,)), known)
    assert [trial.source for trial in trials] == sources
    assert {trial.source: trial.config for trial in trials}.get("lora", known.get("lora")) == known.get("lora")


@pytest.mark.parametrize(
    ("epochs", "teachers", "taught"),
    [((20,), 5, [True]), ((5, 10, 20), 5, [True, True, False]), ((5, 10), 0, [False, False])],
    ids=["one rung", "several", "no teachers"],
)
def test_all_rungs_are_taught_but_the_last_of_several(epochs, teachers, taught):
    settings = FinalsSettings(epochs=epochs, teachers=teachers, candidates=2, learning_rates=(1e-3, 1e-2))
    trial = first_rung(RANKED, settings, {})[0]
    assert [leg.taught for leg in way(Leg(trial, len(epochs), 0, 0), settings)] == taught
    by_rung = [trials * count for trials, count in zip((4, 2, 1), epochs, strict=False)]
    assert epochs_of_all(settings) == (sum(by_rung), sum(count for count, wise in zip(by_rung, taught, strict=True) if wise))


@pytest.mark.parametrize(
    ("epochs", "cycles", "expected"),
    [((20,), 3, [1]), ((5, 10, 20), 3, [1, 1, 3]), ((5, 2), 3, [1, 2]), ((5, 10), 1, [1, 1])],
    ids=["one rung", "several", "fewer epochs", "one cycle"],
)
def test_the_last_of_several_rungs_from_slices_goes_in_cycles(epochs, cycles, expected):
    settings = FinalsSettings(epochs=epochs, scratch_epochs=epochs, cycles=cycles)
    sliced, scratch = first_rung(RANKED, settings, {})[0], from_scratch(KNOWN, settings)[0]
    assert [leg.cycles for leg in way(Leg(sliced, len(epochs), 0, 0), settings)] == expected
    assert {leg.cycles for leg in way(Leg(scratch, len(epochs), 0, 0), settings)} == {1}


@pytest.mark.parametrize("cycles", [0, -1, 1.5])
def test_cycles_that_are_none_are_refused(cycles):
    with pytest.raises(ConfigInvalid, match="cycles"):
        FinalsSettings(cycles=cycles)


@pytest.mark.parametrize("settings", [FinalsSettings("off"), FinalsSettings("winner"), FinalsSettings(scratch_epochs=())], ids=str)
def test_only_thorough_finals_with_epochs_for_it_train_from_scratch(settings):
    assert from_scratch(KNOWN, settings) == []


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
        ({"epochs": (10, 0)}, "at least 1"),
        ({"scratch_epochs": (5, 0)}, "a rung of scratch_epochs is 0; accepted are integers of at least 1"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_by_name(changes, message):
    with pytest.raises(ConfigInvalid, match=message):
        FinalsSettings(**changes)


@dataclass(frozen=True)
class Reached:
    leg: Leg
    fitness: Evaluated


def reached(accuracy, loss, sliced=True, rate=0.1, rung=1):
    trial = Trial("search #1" if sliced else "lora", KNOWN["lora"], rate, sliced)
    return Reached(Leg(trial, rung, 1, 1), evaluated(KNOWN["lora"], accuracy, loss))


def test_finalists_that_val_cannot_tell_apart_are_led_by_the_lower_loss_though_they_are_one_subnet():
    noisy, steady, far = reached(0.95, 0.9), reached(0.94, 0.2, rung=2), reached(0.5, 0.1, rate=0.2)
    assert rank_finalists([noisy, steady, far], 200) == [steady, noisy, far]
    assert rank_finalists([noisy, steady, far], 100_000) == [noisy, steady, far]
    assert rank_finalists([], 200) == []


def test_what_was_trained_alone_is_not_held_to_the_luck_of_those_chosen_on_val():
    lucky, best, steady = reached(0.96, 0.4, rung=0), reached(0.94, 0.3), reached(0.93, 0.2, rung=2)
    assert rank_finalists([lucky, best, steady], 200) == [steady, best, lucky], "within one standard error of 0.94, not of 0.96"


def test_a_lead_in_the_supernet_that_luck_cannot_explain_counts():
    standing, trained = reached(0.96, 0.4, rung=0), reached(0.94, 0.2)
    assert rank_finalists([standing, trained], 200) == [trained, standing]
    assert rank_finalists([standing, trained], 10_000) == [standing, trained], "ten standard errors"
    assert rank_finalists([standing, reached(0.80, 0.2)], 200)[0] == standing


def test_candidates_as_they_stand_are_led_by_the_lower_loss_where_nothing_was_trained_alone():
    first, second = reached(0.96, 0.4, rung=0), reached(0.95, 0.2, rate=0.2, rung=0)
    assert rank_finalists([first, second], 200) == [second, first]
    assert rank_finalists([first, reached(0.94, 0.2, rate=0.2, rung=0)], 200)[0] == first


def test_no_finalist_leads_that_is_worse_than_a_known_method_from_scratch():
    best, known, steady = reached(0.96, 0.9), reached(0.95, 0.8, sliced=False), reached(0.94, 0.2)
    assert rank_finalists([best, known, steady], 200) == [known, best, steady]
    level = reached(0.95, 0.3, rung=2)
    assert rank_finalists([best, known, level, steady], 200) == [level, known, best, steady]


def test_equal_finalists_have_one_order_whatever_order_they_come_in():
    first, second = reached(0.9, 0.5, rate=0.1), reached(0.9, 0.5, rate=0.2)
    assert rank_finalists([first, second], 200) == rank_finalists([second, first], 200) == [first, second]
