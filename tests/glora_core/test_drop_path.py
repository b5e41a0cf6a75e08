"""Stochastic depth: branches are left out in training alone, by a stream of their own, as often as timm would."""

import copy

import numpy as np
import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn

from glora_core.backbones import adapted_layers
from glora_core.backbones.depth import residual_branches
from glora_core.errors import ConfigInvalid
from glora_core.evaluation import score
from glora_core.sampling import stream
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import Trainer, TrainingSettings
from glora_core.training.drop_path import DropPaths
from tests.glora_core.test_training import differing, fit, train_in_process
from tests.glora_core.two_processes import in_two_processes

WITH_BRANCHES = ("vit", "swin", "convnext", "mobilenetv2", "resnet")
MADE = {"vit": "vit_tiny_patch16_224", "swin": "swin_tiny_patch4_window7_224", "convnext": "convnext_atto"}


@pytest.fixture
def make_trainer(make_vit, space, toy_split):
    def make(**changes):
        settings = TrainingSettings(**({"epochs": 4, "batch_size": 8, "policy": "sandwich", "drop_path": 0.5} | changes))
        return Trainer(Supernet(make_vit(), space), toy_split, settings)

    return make


@pytest.mark.parametrize("name", MADE.values(), ids=MADE.keys())
def test_rates_are_those_of_a_model_that_timm_makes_with_drop_paths(name):
    with torch.device("meta"):
        ours, theirs = timm.create_model(name), timm.create_model(name, drop_path_rate=0.3)
    expected = [module.drop_prob for module in theirs.modules() if isinstance(module, DropPath)]
    rates = DropPaths(ours, 0.3)._rates
    assert rates[rates > 0].tolist() == pytest.approx(expected)


def test_a_resnet_whose_branches_are_none_has_as_many_as_timm_makes():
    with torch.device("meta"):
        ours, theirs = timm.create_model("resnet18"), timm.create_model("resnet18", drop_path_rate=0.3)
    assert sum(branch.depth > 0 for branch in residual_branches(ours)) == sum(isinstance(m, DropPath) for m in theirs.modules())


@pytest.mark.parametrize("name", WITH_BRANCHES)
def test_branches_are_left_out_while_it_lasts_and_the_model_is_as_before_afterwards(make_model, make_inputs, name):
    model, inputs = make_model(name), make_inputs(name)
    before, modules = model(inputs), [type(module) for module in model.modules()]
    with DropPaths(model, 0.9).dropping(stream(0), 3, slice(None)):
        dropped = model(inputs)
    assert not torch.equal(dropped, before)
    assert torch.equal(model(inputs), before)
    assert [type(module) for module in model.modules()] == modules
    assert not any(module._forward_hooks for module in model.modules())


def test_blocks_without_a_shortcut_have_no_branch(make_model):
    model = make_model("mobilenetv2")
    assert 0 < len(residual_branches(model)) == sum(getattr(module, "has_skip", False) for module in model.modules())


@pytest.mark.parametrize("name", ["mobileone_s0", "cspnext_s", "repvgg_a0"])
def test_networks_of_blocks_with_and_without_a_shortcut_have_branches_where_timm_would_drop_them(name):
    with torch.device("meta"):
        ours, theirs = timm.create_model(name), timm.create_model(name, drop_path_rate=0.3)
    expected = [module.drop_prob for module in theirs.modules() if isinstance(module, DropPath)]
    rates = DropPaths(ours, 0.3)._rates
    assert rates[rates > 0].tolist() == pytest.approx([rate for rate in expected if rate > 0])


def test_a_model_is_as_before_after_an_error_too(make_model):
    model = make_model("resnet")
    with pytest.raises(InterruptedError), DropPaths(model, 0.9).dropping(stream(0), 3, slice(None)):
        raise InterruptedError
    assert all(branch.block.drop_path is None for branch in residual_branches(model))


def test_an_example_loses_a_branch_as_timms_own_drop_path_would_drop_it(make_vit):
    model, images = make_vit(), torch.randn(6, 3, 8, 8)
    rng = stream(7)
    kept = stream(7).random((4, 6)) >= np.array([0.0, 0.0, 0.5, 0.5])[:, None]

    def expected(row: int) -> torch.Tensor:
        twin = copy.deepcopy(model)
        for number, branch in enumerate(residual_branches(twin)):
            factor = float(kept[number, row]) / (1 - 0.5 * branch.depth)
            setattr(branch.block, branch.name, Scaled(factor))
        return twin(images[row : row + 1])

    with DropPaths(model, 0.5).dropping(rng, 6, slice(None)):
        dropped = model(images)
    torch.testing.assert_close(dropped, torch.cat([expected(row) for row in range(6)]))


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_an_image_whose_windows_are_examples_of_a_block_loses_a_branch_in_all_of_them():
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = (nn.Module() for _ in range(2))
            self.first.drop_path, self.last.drop_path = nn.Identity(), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last.drop_path(x.flatten(0, 1)).view(x.shape)

    with DropPaths(model := Windows(), 0.5).dropping(stream(1), 20, slice(None)):
        found = model(torch.ones(20, 4))
    assert {tuple(row) for row in found.tolist()} == {(0.0,) * 4, (2.0,) * 4}


def test_a_resumed_training_leaves_out_the_same_branches(make_trainer):
    whole, first, second, plain = make_trainer(), make_trainer(), make_trainer(), make_trainer(drop_path=0.0)
    fit(whole)
    state = {}
    first.fit(lambda progress: state.update(copy.deepcopy(first.state())) if progress.epoch == 2 else None)
    torch.rand(7)  # whatever else draws from torch's own generator
    second.load_state(state)
    fit(second)
    fit(plain)
    assert differing(second.supernet.trainable_state(), whole.supernet.trainable_state()) == []
    assert differing(plain.supernet.trainable_state(), whole.supernet.trainable_state())


def test_the_backbone_stays_in_eval_mode_and_a_trained_supernet_is_scored_whole(make_trainer):
    trainer = make_trainer()
    fit(trainer)
    assert not any(module.training for module in trainer.supernet.modules())
    assert score(trainer.supernet, trainer.split, 8) == score(trainer.supernet, trainer.split, 8)


def test_a_supernet_learns_with_drop_paths(make_trainer):
    losses = [p.loss for p in fit(make_trainer(epochs=15, learning_rate=1e-2))]
    assert losses[-1] < 0.7 * losses[0]


def test_a_backbone_without_branches_is_refused(make_model, toy_split):
    model = make_model("bert")
    with pytest.raises(ConfigInvalid, match=r"drop_path is 0\.1, and BertForSequenceClassification has no residual branches"):
        Trainer(Supernet(model, SearchSpace(adapted_layers(model))), toy_split, TrainingSettings(drop_path=0.1))


@pytest.mark.slow
def test_two_processes_leave_out_what_one_process_leaves_out(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    train_in_process(0, 1, alone, "sandwich", drop_path=0.5)
    in_two_processes(train_in_process, together, "sandwich", 0.5)
    expected, *actual = (torch.load(path) for path in (alone / "0.pt", together / "0.pt", together / "1.pt"))
    assert differing(actual[0]["trainable"], actual[1]["trainable"]) == []
    torch.testing.assert_close(actual[0]["trainable"], expected["trainable"], rtol=1e-6, atol=1e-8)
