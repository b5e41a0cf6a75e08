"""Convolutions of every kind and transformers' Conv1D: forward, merge and shapes, against plain layers of the dense weights in float64."""

import pytest
import torch
from timm.layers import StdConv2d
from torch import Tensor, nn
from torch.nn import functional as F

from glora_core.configs import LayerConfig, parse_layer
from glora_core.errors import BackboneUnsupported
from glora_core.layers import GLoRAConv1D, GLoRAConv2d, GLoRALayer, GLoRALinear, adapt, dense_bias, dense_weight
from glora_core.layers.kinds import kind_of, matrix_size
from glora_core.space import LayerShape, SearchSpace

(CONFIGS,) = SearchSpace((LayerShape("layer", 5, 4),), ranks=(2,)).layer_configs
SOME = [*CONFIGS[::7], *(parse_layer(code) for code in ("L3L3L3VV", "L2L3L3SN", "VL3L2VV", "NL3NNN"))]
"""Every seventh config, in which every pair of choices occurs, and some of a higher rank."""
CONVOLUTIONS = (
    "1x1",
    "3x3",
    "3x1",
    "stride",
    "dilation",
    "reflect",
    "circular",
    "same",
    "same, replicate",
    "grouped",
    "depthwise",
    "depthwise, doubling",
    "Conv2dSame",
    "Conv2dSame, depthwise",
)
FORMS = ("paper", "normalised")
TIGHT = {"rtol": 1e-12, "atol": 1e-11}  # float64: dot products of at most 18 terms of size 10

every_kind = pytest.mark.parametrize("kind", ["Conv1D", *CONVOLUTIONS])
every_form = pytest.mark.parametrize("form", FORMS)


def inputs(layer: nn.Module) -> Tensor:
    """An input of the layer's kind."""
    generator = torch.Generator().manual_seed(3)
    geometry = getattr(layer, "geometry", layer)
    shape = (2, geometry.in_channels, 7, 6) if isinstance(geometry, nn.Conv2d) else (2, 3, 5)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def plain_output(module: nn.Module, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """What an unadapted layer computes with other weights."""
    module.weight = nn.Parameter(weight)
    module.bias = None if bias is None else nn.Parameter(bias)
    if bias is None and type(module).__name__ == "Conv1D":  # whose forward needs a bias
        module.bias = nn.Parameter(torch.zeros(weight.shape[1], dtype=weight.dtype))
    return module(x)


def dense(layer: GLoRALayer, support: dict[str, Tensor | None], shape: torch.Size) -> tuple[Tensor, Tensor | None]:
    """W_uni in the layout of the layer's own weight, and b_uni."""
    matrix = layer.weight.T if isinstance(layer, GLoRAConv1D) else layer.weight.flatten(1)
    weight = dense_weight(matrix, support["A"], support["B"])
    bias = dense_bias(matrix, layer.bias, support["C"], support["D"], support["E"])
    return (weight.T if isinstance(layer, GLoRAConv1D) else weight.reshape(shape)), bias


def close(actual: Tensor | None, expected: Tensor | None) -> bool:
    if actual is None or expected is None:
        return actual is expected
    return actual.shape == expected.shape and torch.allclose(actual, expected, **TIGHT)


def differing(layer: GLoRALayer, module: nn.Module, form: str, by_the_table, configs: list[LayerConfig]) -> list[str]:
    """Codes of the configs whose forward differs from a plain layer of the dense weights, or whose merged weights do."""
    x, failing = inputs(layer), []
    for config in configs:
        layer.config = config
        weight, bias = dense(layer, by_the_table(layer, form, config), layer.weight.shape)
        merged_weight, merged_bias = layer.merged(config)
        if not close(layer(x), plain_output(module, weight, bias, x)):
            failing.append(f"{config.code}: forward")
        if not (close(merged_weight, weight) and close(merged_bias, bias)):
            failing.append(f"{config.code}: merge")
    return failing


@every_form
@every_kind
@pytest.mark.parametrize("with_bias", [True, False])
def test_forward_and_merge_equal_a_plain_layer_of_the_dense_weights(make_layer, make_module, by_the_table, kind, form, with_bias):
    layer, module = make_layer(kind, form, with_bias), make_module(kind, with_bias)
    assert differing(layer, module, form, by_the_table, SOME) == []


@every_form
@pytest.mark.parametrize("kind", ["stride", "grouped"])
def test_forward_and_merge_equal_a_plain_layer_of_the_dense_weights_on_all_432_configs(make_layer, make_module, by_the_table, kind, form):
    assert len(set(CONFIGS)) == 432
    assert differing(make_layer(kind, form), make_module(kind), form, by_the_table, list(CONFIGS)) == []


@every_form
@every_kind
@pytest.mark.parametrize("with_bias", [True, False])
def test_every_config_computes_what_the_plain_layer_computes_before_training(make_layer, make_module, kind, form, with_bias):
    layer, module = make_layer(kind, form, with_bias, random=False), make_module(kind, with_bias)
    x, failing = inputs(layer), []
    expected = plain_output(module, module.weight.detach(), None if module.bias is None else module.bias.detach(), x)
    for config in SOME:
        layer.config = config
        if not close(layer(x), expected):
            failing.append(config.code)
    assert failing == []


@every_form
def test_c_of_a_1x1_convolution_is_added_to_every_pixel_of_its_input(make_layer, by_the_table, form):
    layer, config = make_layer("1x1", form), parse_layer("NNVNN")
    layer.config = config
    patch = by_the_table(layer, form, config)["C"]
    expected = F.conv2d(inputs(layer) + patch[:, None, None], layer.weight, layer.bias)
    torch.testing.assert_close(layer(inputs(layer)), expected, **TIGHT)


@every_form
def test_what_c_adds_to_a_padded_convolution_is_the_same_at_its_borders(make_layer, form):
    layer, x = make_layer("3x3", form), inputs(make_layer("3x3", form))
    bare = layer(x)
    layer.config = parse_layer("NNVNN")
    added = layer(x) - bare
    torch.testing.assert_close(added, added[:1, :, :1, :1].expand_as(added), **TIGHT)


@pytest.mark.parametrize("kind", ["linear", "Conv1D", *CONVOLUTIONS])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_layer_gives_back_what_it_was_before_it_was_adapted(make_layer, make_module, kind, with_bias):
    expected, bare = make_module(kind, with_bias), make_layer(kind, "normalised", with_bias).bare()
    assert type(bare) is type(expected)
    assert bare.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(bare.state_dict()[name], value) for name, value in expected.state_dict().items())
    if with_bias or kind != "Conv1D":
        assert torch.equal(bare(inputs(bare)), expected(inputs(expected)))


def test_the_bare_layer_shares_no_memory_with_the_adapted_one(make_layer):
    layer = make_layer("3x3", "normalised")
    before = layer.weight.clone()
    with torch.no_grad():
        layer.bare().weight.fill_(1.0)
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize(
    ("kind", "size"),
    [("linear", (4, 5)), ("Conv1D", (4, 5)), ("1x1", (4, 5)), ("3x1", (4, 9)), ("grouped", (6, 18)), ("depthwise", (4, 9))],
)
def test_a_weight_reads_as_a_matrix_of_outputs_by_what_each_output_sees(make_module, make_layer, kind, size):
    assert matrix_size(make_module(kind)) == size
    layer = make_layer(kind, "normalised")
    assert tuple(layer.matrix(layer.weight).shape) == size
    assert torch.equal(layer.layout(layer.matrix(layer.weight)), layer.weight)


def test_each_module_has_its_kind(make_module):
    kinds = {kind: kind_of(make_module(kind)) for kind in ("linear", "Conv1D", *CONVOLUTIONS)}
    assert kinds == {"linear": GLoRALinear, "Conv1D": GLoRAConv1D} | dict.fromkeys(CONVOLUTIONS, GLoRAConv2d)


class Scaled(nn.Linear):
    """A linear layer that does something else with its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * 2, self.bias)


class Renamed(nn.Linear):
    """A linear layer in all but its name."""


@pytest.mark.parametrize(
    "module",
    [
        Scaled(2, 2),
        StdConv2d(2, 2, 3),
        nn.Conv1d(2, 2, 1),
        nn.ConvTranspose2d(2, 2, 1),
        nn.Embedding(2, 2),
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 2, 1)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_a_module_that_computes_something_else_with_its_weight_is_of_no_kind(module):
    assert kind_of(module) is None
    with pytest.raises(BackboneUnsupported, match=rf"{type(module).__name__} cannot be adapted; accepted: nn.Linear, nn.Conv2d, Conv1D"):
        adapt(module, {}, "normalised", torch.Generator())


def test_a_subclass_that_changes_nothing_is_of_its_parents_kind():
    assert kind_of(Renamed(2, 2)) is GLoRALinear
