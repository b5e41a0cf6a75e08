"""Gradients of every choice of every tensor through every kind of layer, against finite differences and against the dense reference."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from glora_core.configs import KINDS, TENSORS, Choice, LayerConfig, lora, parse_layer
from glora_core.layers import GLoRAConv1D, GLoRALayer, dense_bias, dense_weight

FORMS = ("paper", "normalised")
LAYERS = ("linear", "Conv1D", "stride", "reflect", "grouped", "Conv2dSame")
EXHAUSTIVE = ("linear", "grouped")
"""Layers that act through factors and through the dense weight: all of their Jacobian is checked, a random projection of others'."""
ALONE = {
    f"{tensor} {kind}{rank or ''}": LayerConfig(**{tensor: lora(rank) if rank else Choice(kind)})
    for tensor in TENSORS
    for kind in KINDS[tensor]
    if kind != "none"
    for rank in ((2, 3) if kind == "lora" else (0,))
}
TOGETHER = ("L3L2L3VV", "L2NVSS", "VL3L2SV", "VVVVV", "SSNSS", "NL2L3NV", "NNNNN")

every_form = pytest.mark.parametrize("form", FORMS)
every_layer = pytest.mark.parametrize("kind", LAYERS)


def inputs(layer: GLoRALayer) -> Tensor:
    shape = (1, layer.geometry.in_channels, 4, 3) if isinstance(layer.geometry, nn.Conv2d) else (2, 5)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()


def check(layer: GLoRALayer, config: LayerConfig, **settings: bool) -> bool:
    """Whether gradients of the input and of every stored number equal finite differences."""
    layer.config = config
    names, stored = zip(*layer.named_parameters(), strict=True)

    def compute(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    return torch.autograd.gradcheck(compute, (inputs(layer), *stored), **settings)


@every_form
@every_layer
@pytest.mark.parametrize("choice", ALONE)
def test_gradients_of_every_choice_alone_equal_finite_differences(make_layer, kind, form, choice):
    assert check(make_layer(kind, form), ALONE[choice], fast_mode=kind not in EXHAUSTIVE)


@every_form
@every_layer
@pytest.mark.parametrize("code", TOGETHER)
def test_gradients_of_several_tensors_together_equal_finite_differences(make_layer, kind, form, code):
    assert check(make_layer(kind, form), parse_layer(code), fast_mode=True)


@every_form
@every_layer
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients_equal_those_of_the_dense_reference_by_the_same_numbers(make_layer, make_module, by_the_table, kind, form, with_bias):
    layer, module = make_layer(kind, form, with_bias), make_module(kind)
    x, failing = inputs(layer), []
    wanted = {"x": x} | dict(layer.named_parameters())
    matrix = layer.weight.T if isinstance(layer, GLoRAConv1D) else layer.weight.flatten(1)
    for config in (*ALONE.values(), *map(parse_layer, TOGETHER)):
        layer.config = config
        support = by_the_table(layer, form, config)
        weight = dense_weight(matrix, support["A"], support["B"])
        weight = weight.T if isinstance(layer, GLoRAConv1D) else weight.reshape(layer.weight.shape)
        bias = dense_bias(matrix, layer.bias, support["C"], support["D"], support["E"])
        bias = torch.zeros(len(matrix), dtype=torch.float64) if bias is None else bias
        reference = functional_call(module, {"weight": weight, "bias": bias}, (x,))
        upstream = torch.randn(reference.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        expected = torch.autograd.grad((reference * upstream).sum(), wanted.values(), allow_unused=True, materialize_grads=True)
        actual = torch.autograd.grad((layer(x) * upstream).sum(), wanted.values(), allow_unused=True, materialize_grads=True)
        pairs = zip(wanted, actual, expected, strict=True)
        failing += [f"{config.code}: {name}" for name, one, other in pairs if not torch.allclose(one, other, rtol=1e-11, atol=1e-11)]
    assert failing == []
