"""Early stop: a training ends where its probes no longer get better, keeps what was best, and does so after a restart too."""

import copy
from dataclasses import replace

import pytest
import torch

from glora_core.errors import ConfigInvalid, NotLearning
from glora_core.supernet import Supernet
from glora_core.training import Probe, Trainer, TrainingSettings
from tests.glora_core.test_training import differing, fit

EPOCHS = 24


@pytest.fixture
def make_trainer(make_vit, space, toy_split):
    """Trainers whose probe asks for the very opposite of what is trained, so that its loss soon rises."""

    def make(wrong=True, **changes):
        supernet, probed = Supernet(make_vit(), space), copy.copy(toy_split)
        object.__setattr__(probed, "labels", (toy_split.labels + 1) % 3 if wrong else toy_split.labels)
        settings = TrainingSettings(**({"epochs": EPOCHS, "batch_size": 10, "learning_rate": 3e-3, "warmup": 0.0} | changes))
        probe = replace(Probe.of(supernet, probed, settings.epochs), every=1)
        return Trainer(supernet, toy_split, settings, probe)

    return make


def reports_and_states(trainer):
    found = []
    trainer.fit(lambda progress: found.append((progress, trainer.supernet.trainable_state())))
    return found


def test_training_ends_after_so_many_epochs_without_a_lower_loss_and_keeps_the_best_numbers(make_trainer):
    patient, free = make_trainer(patience=2), make_trainer()
    stopped, whole = reports_and_states(patient), reports_and_states(free)
    losses = [progress.val_loss for progress, _ in whole]
    best = min(range(len(stopped)), key=losses.__getitem__)
    assert len(stopped) == best + 1 + 2 < EPOCHS
    assert patient.finished
    assert [progress.val_loss for progress, _ in stopped] == losses[: len(stopped)]
    assert differing(stopped[-1][1], whole[best][1]) == []
    assert differing(stopped[-1][1], whole[len(stopped) - 1][1])


def test_without_patience_training_goes_on_to_the_end(make_trainer):
    assert len(fit(make_trainer())) == EPOCHS


def test_a_training_that_goes_on_getting_better_is_not_stopped(make_trainer):
    assert len(fit(make_trainer(wrong=False, patience=8))) == EPOCHS


def test_with_averages_those_of_the_best_epoch_are_kept(make_trainer):
    trainer, averages = make_trainer(patience=2, ema=0.9), []
    trainer.fit(lambda progress: averages.append([value.clone() for value in trainer.state()["averages"]]))
    kept = [parameter.detach() for parameter in trainer._parameters]
    assert all(torch.equal(a, b) for a, b in zip(kept, averages[-3], strict=True))


@pytest.mark.parametrize("interrupted", [1, 3, 4])
def test_a_resumed_training_stops_where_the_uninterrupted_one_does(make_trainer, interrupted, tmp_path):
    whole, first, second = (make_trainer(patience=3, drop_path=0.3) for _ in range(3))
    expected = fit(whole)
    assert interrupted <= len(expected) < EPOCHS
    first.fit(lambda progress: torch.save(first.state(), tmp_path / "state.pt") if progress.epoch == interrupted else None)
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed = fit(second)
    assert [(p.epoch, p.loss, p.val_loss) for p in resumed] == [(p.epoch, p.loss, p.val_loss) for p in expected[interrupted:]]
    assert differing(second.supernet.trainable_state(), whole.supernet.trainable_state()) == []


def test_a_training_that_was_stopped_trains_no_further_when_it_is_taken_up_again(make_trainer):
    first, second = make_trainer(patience=2), make_trainer(patience=2)
    fit(first)
    second.load_state(first.state())
    assert fit(second) == []
    assert differing(second.supernet.trainable_state(), first.supernet.trainable_state()) == []


def test_a_supernet_that_stops_early_because_it_does_not_learn_is_reported_as_that(make_trainer):
    with pytest.raises(NotLearning):
        fit(make_trainer(patience=40, epochs=200, learning_rate=1e-12, weight_decay=0.0))


def test_probes_come_as_often_as_patience_needs(make_vit, space, toy_split):
    supernet = Supernet(make_vit(), space)
    assert Probe.of(supernet, toy_split, 500, patience=10).every == 10
    assert Probe.of(supernet, toy_split, 40, patience=100).every == 5


def test_patience_without_a_probe_is_refused(make_vit, space, toy_split):
    with pytest.raises(ConfigInvalid, match="patience is 3, and nothing is probed on val"):
        Trainer(Supernet(make_vit(), space), toy_split, TrainingSettings(patience=3))


@pytest.mark.parametrize("patience", [0, -1, 1.5, True, "3"])
def test_a_patience_out_of_range_is_refused(patience):
    with pytest.raises(ConfigInvalid, match="patience is"):
        TrainingSettings(patience=patience)
