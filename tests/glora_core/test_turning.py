"""The share of training images that `affine` turns: it follows how well the network knows what it is shown, and survives a restart."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from glora_core.data.images import ImageSplit
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import Progress, Trainer, TrainingSettings
from glora_core.training import turning as turning_module
from glora_core.training.turning import STEP, Turning

FOUR = torch.tensor([0, 1, 2, 3, -1])


def known_loss(smoothing: float = 0.0) -> float:
    """Below which the examples of four equally frequent classes count as known."""
    kept, rest = 1 - 0.75 * smoothing, smoothing / 4
    least = -(kept * math.log(kept) + 3 * rest * math.log(rest)) if smoothing else 0.0
    return least + 0.3 * (math.log(4) - least)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_more_are_turned_while_examples_are_known_and_fewer_while_they_are_not(smoothing: float) -> None:
    turning, known = Turning(FOUR, smoothing, 4), known_loss(smoothing)
    assert turning.share == 0
    for _ in range(3):
        turning.note(known - 1e-3)
    assert turning.share == pytest.approx(3 * STEP)
    turning.note(known + 1e-3)
    assert turning.share == pytest.approx(2 * STEP)


def test_the_share_stays_between_none_and_all() -> None:
    turning = Turning(FOUR, 0.1, 4)
    turning.note(10.0)
    assert turning.share == 0
    for _ in range(30):
        turning.note(0.4)
    assert turning.share == 1


@pytest.fixture
def make_trainer(make_vit: Callable[..., nn.Module], space: SearchSpace, toy_split: ImageSplit) -> Callable[..., Trainer]:
    settings = TrainingSettings(epochs=4, batch_size=8, policy="sandwich", augment=("crop", "affine"))
    return lambda **changes: Trainer(Supernet(make_vit(), space), toy_split, replace(settings, **changes))


def trained(trainer: Trainer) -> dict[str, torch.Tensor]:
    trainer.fit()
    return trainer.supernet.trainable_state()


def test_what_has_not_learned_its_examples_trains_as_without_affine(make_trainer: Callable[..., Trainer]) -> None:
    turned, plain = trained(make_trainer()), trained(make_trainer(augment=("crop",)))
    assert all(torch.equal(turned[name], value) for name, value in plain.items())


def test_resumed_training_turns_as_many_as_an_uninterrupted_one(
    make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    never = trained(make_trainer())
    monkeypatch.setattr(turning_module, "KNOWN", 10.0)
    monkeypatch.setattr(turning_module, "STEP", 0.3)
    first, second, states = make_trainer(), make_trainer(), {}

    def keep(progress: Progress) -> None:
        states[progress.epoch] = first.state()

    first.fit(keep)
    whole = first.supernet.trainable_state()
    assert [state["turned"] for state in states.values()] == pytest.approx([0.3, 0.6, 0.9, 1.0])
    assert any(not torch.equal(whole[name], value) for name, value in never.items())

    second.load_state(states[2])
    resumed = trained(second)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
