"""Finals played in one process: what is trained, from what, for how long; and that the winner is the best of all."""

from dataclasses import replace

import pytest
import torch

from glora_core.errors import ConfigInvalid
from glora_core.evaluation import SubnetScorer
from glora_core.finals import FinalsSettings, Leg, Trial, asked_for_soup, halved, play, rank_finalists, way
from glora_core.finals.run import leg_settings, run_finals, single, train_again, train_alone
from glora_core.methods import method_config, methods_within
from glora_core.search import Evaluated
from glora_core.supernet import Supernet
from glora_core.training import Trainer, TrainingSettings
from tests.glora_core.conftest import make_toy_split

TRAINING = TrainingSettings(epochs=2, batch_size=10, learning_rate=0.01, policy="sandwich")
SETTINGS = FinalsSettings(candidates=1, learning_rates=(0.01, 0.003), epochs=(1, 2), scratch_epochs=(3,), standing=0, afresh=False)


@pytest.fixture
def val_split():
    return make_toy_split(12)


@pytest.fixture
def supernet(make_vit, space, toy_split):
    found = Supernet(make_vit(), space)
    Trainer(found, toy_split, TRAINING).fit()
    return found


@pytest.fixture
def ranked(space):
    """A search's history: LoRA at rank 1 first, the smallest subnet last."""
    configs = [method_config(space, "lora", 1), space.extreme(largest=False)]
    return [Evaluated(config, 0.9 - 0.1 * i, 1.0, space.parameters(config)) for i, config in enumerate(configs)]


@pytest.fixture
def budget(space):
    """LoRA at rank 2, which this space of ranks 1 and 3 does not have."""
    return space.parameters(method_config(space, "lora", 2))


@pytest.fixture
def finalists(supernet, toy_split, val_split, ranked, budget):
    return run_finals(supernet, toy_split, val_split, ranked, budget, SETTINGS, TRAINING)


def test_every_rung_and_every_known_method_is_among_the_finalists_best_first(finalists, supernet, budget):
    known = set(methods_within(supernet.space, budget))
    first, second = ([f.leg for f in finalists if f.leg.trial.sliced and f.leg.rung == rung] for rung in (1, 2))
    scratch = [f.leg for f in finalists if not f.leg.trial.sliced]
    assert {leg.trial.source for leg in first} == {"search #1"}
    assert {leg.trial.source for leg in scratch} == known == {"linear-probe", "bitfit", "ssf", "lora"}
    assert (len(first), len(second), len(scratch)) == (2, 1, 8)
    assert {leg.trained for leg in first + second + scratch} == {1, 3}
    assert rank_finalists(sorted(finalists, key=lambda f: f.fitness.order), 12) == finalists
    assert finalists[0].fitness.fitness >= max(f.fitness.fitness for f in finalists if not f.leg.trial.sliced)


def test_finalists_are_measured_by_the_metric_asked_for(supernet, toy_split, val_split, ranked, budget):
    settings = FinalsSettings("winner", learning_rates=(0.01,), epochs=(1,), standing=0)
    (found,) = run_finals(supernet, toy_split, val_split, ranked, budget, settings, TRAINING, metric="macro-accuracy")
    score = SubnetScorer(found.on(supernet)).score(found.config, val_split, 50, metric="macro-accuracy")
    assert (found.fitness.measure, found.fitness.macro_accuracy, found.fitness.accuracy) == (
        score.fitness,
        score.macro_accuracy,
        score.accuracy,
    )


def test_a_finalists_supernet_scores_as_reported_and_leaves_the_supernet_as_it_was(finalists, supernet, val_split):
    before = supernet.trainable_state()
    for finalist in (finalists[0], next(f for f in finalists if f.leg.trial.source == "lora")):
        score = SubnetScorer(finalist.on(supernet)).score(finalist.config, val_split, 50)
        assert (score.accuracy, score.loss) == (finalist.fitness.accuracy, finalist.fitness.loss)
    assert all(torch.equal(value, before[name]) for name, value in supernet.trainable_state().items())


def test_a_further_rung_trains_on_from_where_the_trial_was(finalists, supernet, toy_split, val_split):
    second = next(f for f in finalists if f.leg.rung == 2)
    first = next(f for f in finalists if f.leg.rung == 1 and f.leg.trial == second.leg.trial)
    alone = first.on(supernet)
    train_alone(alone, toy_split, val_split, leg_settings(second.leg, TRAINING), 50)
    assert (first.leg.taught, second.leg.taught) == (True, False)
    state = alone.trainable_state()
    assert second.state.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in second.state.items())


def test_a_last_rung_that_starts_afresh_owes_the_others_nothing_but_the_choice(supernet, toy_split, val_split, ranked, budget):
    settings = replace(SETTINGS, mode="winner", afresh=True)
    found = run_finals(supernet, toy_split, val_split, ranked, budget, settings, TRAINING)
    (last,) = [f for f in found if f.leg.rung == 2]
    alone = single(supernet, last.config, TRAINING.seed)
    train_alone(alone, toy_split, val_split, leg_settings(last.leg, TRAINING), 50)
    assert (last.leg.sliced, last.leg.trial.sliced, last.leg.trained, last.leg.taught) == (False, True, 2, False)
    assert way(last.leg, settings) == [last.leg]
    again = train_again(supernet, last, toy_split, settings, TRAINING)
    for state in (alone.trainable_state(), again.state):
        assert last.state.keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in last.state.items())
    assert {f.leg.sliced for f in found if f.leg.rung == 1} == {True}


def test_a_trial_that_diverges_is_left_out(supernet, toy_split, val_split, ranked, budget):
    settings = FinalsSettings("winner", learning_rates=(1e30, 0.01), epochs=(1, 1), standing=0)
    found = run_finals(supernet, toy_split, val_split, ranked, budget, settings, TRAINING)
    assert {f.leg.trial.learning_rate for f in found} == {0.01}


def test_each_finalist_is_told_as_soon_as_it_is_trained(supernet, toy_split, val_split, ranked, budget):
    told = []
    settings = FinalsSettings("winner", learning_rates=(0.01, 0.003), epochs=(1, 1), standing=0)
    found = run_finals(supernet, toy_split, val_split, ranked, budget, settings, TRAINING, on_trial=told.append)
    assert [f.leg.rung for f in told] == [1, 1, 2]
    assert rank_finalists(sorted(told, key=lambda f: f.fitness.order), 12) == found


def test_the_best_candidates_are_finalists_as_they_stand_in_the_supernet(supernet, toy_split, val_split, ranked, budget):
    settings = replace(SETTINGS, mode="winner", standing=2)
    found = run_finals(supernet, toy_split, val_split, ranked, budget, settings, TRAINING)

    standing = {f.leg.trial.source: f for f in found if not f.leg.trained}
    assert [standing[f"search #{place}"].config for place in (1, 2)] == [candidate.config for candidate in ranked]
    assert {f.leg.rung for f in standing.values()} == {0}
    scorer = SubnetScorer(supernet)
    for finalist in standing.values():
        score, alone = (s.score(finalist.config, val_split, 50) for s in (scorer, SubnetScorer(finalist.on(supernet))))
        assert score == alone
        assert (score.accuracy, score.loss) == (finalist.fitness.accuracy, finalist.fitness.loss)
    early = [f for f in found if f.leg.rung < 2]
    assert {f.leg.trial.name for f in asked_for_soup(early, 12)} >= {f.leg.trial.name for f in standing.values()}
    with pytest.raises(ConfigInvalid, match="search #1 as it stands was not trained alone"):
        train_again(supernet, standing["search #1"], val_split, settings, TRAINING)


def test_what_comes_from_the_supernet_is_taught_by_the_average_of_its_best_candidates(supernet, toy_split, val_split, ranked, budget):
    settings = replace(SETTINGS, teachers=2, epochs=(1,), learning_rates=(0.01,))
    found = run_finals(supernet, toy_split, val_split, ranked, budget, settings, TRAINING)
    assert {f.leg.trial.sliced: f.leg.trial.teachers for f in found} == {True: tuple(c.config for c in ranked), False: ()}

    taught = next(f for f in found if f.leg.trial.sliced)
    teacher, states = supernet.bare(), [supernet.merged_state(candidate.config, torch.float64) for candidate in ranked]
    average = {name: (sum(state[name] for state in states) / 2).to(value.dtype) for name, value in teacher.state_dict().items()}
    teacher.load_state_dict(average)
    alone = supernet.cut(taught.config)
    Trainer(alone, toy_split, leg_settings(taught.leg, TRAINING), teacher=teacher).fit()
    assert all(torch.equal(value, taught.state[name]) for name, value in alone.trainable_state().items())
    again = train_again(supernet, taught, toy_split, settings, TRAINING)
    assert all(torch.equal(value, taught.state[name]) for name, value in again.state.items())


class Reached:
    """A trained leg whose fitness is its trial's place in an order."""

    def __init__(self, leg: Leg, accuracy: float) -> None:
        self.leg, self.fitness = leg, Evaluated(leg.trial.config, accuracy, 1.0, 0)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_as_many_legs_are_played_as_were_planned(count):
    trials = [Trial(f"search #{i}", (), 0.1, True) for i in range(count)]
    scratch = [Trial(name, (), 0.1, False) for name in ("bitfit", "lora", "ssf")]
    rungs = []

    def train(legs, before):
        rungs.append([leg.rung for leg in legs])
        assert set(before) >= {leg.trial.name for leg in legs if leg.rung > 1}
        return {leg.trial.name: Reached(leg, i / 100) for i, leg in enumerate(legs)}

    found = play(trials, scratch, FinalsSettings(epochs=(1, 2, 4), scratch_epochs=(3, 6), afresh=False), train)

    assert list(map(len, rungs)) == [a + b for a, b in zip(halved(count, 3), [3, 2, 0], strict=True)]
    assert {r.leg.trained for r in found if r.leg.rung == 3} == {7}
    scratch_legs = [(r.leg.trial.source, r.leg.rung, r.leg.trained) for r in found if not r.leg.trial.sliced]
    assert sorted(scratch_legs) == [("bitfit", 1, 3), ("lora", 1, 3), ("lora", 2, 9), ("ssf", 1, 3), ("ssf", 2, 9)]


def test_finals_of_known_methods_alone_end_after_the_first_rung():
    calls = []

    def train(legs, before):
        calls.append(len(legs))
        return {leg.trial.name: Reached(leg, 0.5) for leg in legs}

    assert len(play([], [Trial("lora", (), 0.1, False)], FinalsSettings(epochs=(1, 2), scratch_epochs=(3,)), train)) == 1
    assert calls == [1]


def test_a_finalist_is_trained_again_leg_by_leg_in_the_way_it_was(finalists, supernet, toy_split, val_split):
    second = next(f for f in finalists if f.leg.rung == 2)
    same = train_again(supernet, second, toy_split, SETTINGS, TRAINING)
    assert all(torch.equal(value, same.state[name]) for name, value in second.state.items())
    other = train_again(supernet, second, val_split, SETTINGS, TRAINING)
    assert not all(torch.equal(value, other.state[name]) for name, value in second.state.items())
    assert (other.leg, other.fitness) == (second.leg, second.fitness)


def test_a_known_method_is_trained_again_from_scratch(finalists, supernet, toy_split):
    known = next(f for f in finalists if f.leg.trial.source == "lora")
    same = train_again(supernet, known, toy_split, SETTINGS, TRAINING)
    assert all(torch.equal(value, same.state[name]) for name, value in known.state.items())


def test_the_way_of_a_leg_is_every_rung_up_to_it():
    settings, trial = FinalsSettings(epochs=(1, 2, 4), afresh=False), Trial("search #1", (), 0.1, True)
    assert way(Leg(trial, 2, 2, 3), settings) == [Leg(trial, 1, 1, 1), Leg(trial, 2, 2, 3)]
    known = Trial("lora", (), 0.1, False)
    assert way(Leg(known, 2, 15, 20), settings) == [Leg(known, 1, 5, 5), Leg(known, 2, 15, 20)]


def test_a_leg_keeps_the_share_of_warm_up_and_trains_to_the_end_of_its_epochs(trained):
    config = trained.space.extreme(largest=False)
    leg = Leg(Trial("search #1", config, 1e-3, sliced=True), rung=1, epochs=4, trained=4)
    settings = leg_settings(leg, replace(TRAINING, epochs=100, warmup_epochs=10, patience=5, drop_path=0.2))
    assert (settings.warmup_share, settings.patience, settings.drop_path) == (0.1, None, 0.2)
    assert leg_settings(leg, replace(TRAINING, epochs=100, warmup_epochs=100)).warmup_share == 1.0


def test_a_leg_in_cycles_has_their_average_instead_of_a_running_one(trained):
    leg = Leg(Trial("search #1", trained.space.extreme(largest=False), 1e-3, sliced=True), 2, 6, 9, cycles=3)
    settings = [leg_settings(each, replace(TRAINING, ema=0.9)) for each in (leg, replace(leg, cycles=1))]
    assert [(found.cycles, found.ema) for found in settings] == [(3, 0.0), (1, 0.9)]
