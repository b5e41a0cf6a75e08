"""A low-rank B starts along the principal components of its layer's inputs, whatever the kind of layer."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from glora_core.backbones import adapted_layers
from glora_core.calibration import calibrate
from glora_core.configs import lora
from glora_core.directions import principal_rows
from glora_core.layers.kinds import adapt
from glora_core.presets import preset
from glora_core.supernet import Supernet
from glora_core.training import Trainer, TrainingSettings
from tests.glora_core.conftest import TIMM

RANK = 3


def adapted(module):
    generator = torch.Generator().manual_seed(0)
    return adapt(module.double(), {"B": (lora(RANK),)}, "normalised", generator)


def lively(*shape):
    """Inputs that differ more along some combinations of channels, the last dimension, than along others, about a mean far from zero."""
    generator = torch.Generator().manual_seed(1)
    channels = shape[-1]
    mixing = torch.randn(channels, channels, generator=generator, dtype=torch.float64) * (0.6 ** torch.arange(channels))
    return torch.randn(*shape, generator=generator, dtype=torch.float64) @ mixing.T + 5.0


def components(patches):
    """By the whole covariance."""
    patches = patches.reshape(-1, patches.shape[-1])
    return torch.linalg.eigh(torch.cov(patches.T))[1].flip(1).T[:RANK]


def cases():
    x = lively(6, 7, 12)
    yield pytest.param(nn.Linear(12, 5), x, x, id="linear")
    yield pytest.param(Conv1D(5, 12), x, x, id="transposed")
    maps = lively(4, 8, 8, 6).movedim(-1, 1)
    patches = F.unfold(maps, 3, padding=1, stride=2).transpose(1, 2)
    yield pytest.param(nn.Conv2d(6, 5, 3, stride=2, padding=1), maps, patches, id="convolution")


@pytest.mark.parametrize(("module", "x", "patches"), cases())
def test_rows_are_the_principal_components_in_order_at_the_size_of_those_before(module, x, patches):
    layer = adapted(module)
    start = layer.support.up("B", RANK).detach()
    rows = principal_rows(layer, x, start)
    assert rows.shape == start.shape
    directions = F.normalize(rows)
    for found, wanted in zip(directions, components(patches), strict=True):
        assert abs(float(found @ wanted)) > 0.999
    assert bool((rows.gather(1, rows.abs().argmax(1, keepdim=True)) > 0).all())
    sizes = [float((patches @ either.T).square().mean()) for either in (rows, start)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-6)
    assert torch.equal(rows, principal_rows(layer, x, start))


def test_inputs_that_do_not_vary_have_no_components():
    layer = adapted(nn.Linear(12, 5))
    assert principal_rows(layer, torch.full((4, 12), 3.0, dtype=torch.float64), layer.support.up("B", RANK)) is None


def test_as_many_rows_as_inputs_are_left_as_they_are():
    layer = adapted(nn.Linear(RANK, 5))
    assert principal_rows(layer, lively(9, RANK), layer.support.up("B", RANK)) is None


def test_more_rows_than_directions_that_vary_are_still_orthogonal():
    layer = adapted(nn.Linear(12, 5))
    x = torch.outer(torch.arange(6.0, dtype=torch.float64), torch.ones(12, dtype=torch.float64))
    rows = principal_rows(layer, x, layer.support.up("B", RANK))
    assert bool(rows.isfinite().all())
    directions = F.normalize(rows)
    torch.testing.assert_close(directions @ directions.T, torch.eye(RANK, dtype=torch.float64))


@pytest.mark.parametrize("family", ["swin", "convnext", "mobilenetv2"])
def test_calibrating_points_every_layer_but_those_of_several_groups(make_model, family):
    model = make_model(family)
    supernet = Supernet(model, preset("lora-2", adapted_layers(model)))
    before = {shape.name: layer.support.up("B", 2).detach().clone() for shape, layer in supernet.layers()}
    calibrate(supernet, torch.randn(4, 3, TIMM[family][2], TIMM[family][2], dtype=torch.float64))
    for shape, layer in supernet.layers():
        changed = not torch.equal(before[shape.name], layer.support.up("B", 2))
        assert changed == (layer.factored and layer.support.in_features > 2), shape.name
        assert layer.support.untrained


@pytest.mark.parametrize("form", ["normalised", "paper"])
def test_a_trainer_points_an_untrained_supernet_of_the_normalised_form_alone(make_vit, space, toy_split, form):
    supernet, rank = Supernet(make_vit(), space, form), max(space.ranks_used)

    def ups():
        return [layer.support.up("B", rank).detach().clone() for _, layer in supernet.layers()]

    before, settings = ups(), TrainingSettings(epochs=1, batch_size=10, policy="sandwich", entanglement=form)
    trainer = Trainer(supernet, toy_split, settings)
    same = [torch.equal(*pair) for pair in zip(before, ups(), strict=True)]
    assert all(same) if form == "paper" else not any(same)
    trainer.fit()
    trained = ups()
    Trainer(supernet, toy_split, settings)
    assert all(torch.equal(*pair) for pair in zip(trained, ups(), strict=True))


def test_the_padding_of_texts_does_not_count(make_model, make_inputs):
    ups, inputs = [], make_inputs("bert")
    for padding in (0, 9):
        supernet = Supernet(make_model("bert"), preset("lora-2", adapted_layers(make_model("bert"))))
        calibrate(supernet, {name: F.pad(values, (0, padding)) for name, values in inputs.items()})
        ups.append([layer.support.up("B", 2).detach() for _, layer in supernet.layers()])
    for first, second in zip(*ups, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
