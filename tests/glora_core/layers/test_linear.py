"""`GLoRALinear` on all 432 layer configs: forward, gradients, merge and counts, against the dense reference in float64."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glora_core.configs import parse_layer
from glora_core.layers import GLoRALayer, GLoRALinear, dense_bias, dense_linear, dense_weight
from glora_core.space import LayerShape, SearchSpace

IN, OUT, RANK, MAX_RANK = 5, 4, 2, 3
(CONFIGS,) = SearchSpace((LayerShape("layer", IN, OUT),), ranks=(RANK,)).layer_configs
TIGHT = {"rtol": 1e-12, "atol": 1e-12}  # float64: dot products of at most 5 terms of size 1, far below 1e-12

every_layer = pytest.mark.parametrize(
    ("form", "with_bias"), [("paper", True), ("paper", False), ("normalised", True), ("normalised", False)]
)


def close(actual: Tensor | None, expected: Tensor | None) -> bool:
    if actual is None or expected is None:
        return actual is expected
    return actual.shape == expected.shape and torch.allclose(actual, expected, **TIGHT)


@pytest.fixture
def linear(make_layer) -> partial[GLoRALayer]:
    """A factory of adapted linear layers; the ranks allowed exceed that of the configs, so that slices are real."""
    return partial(make_layer, "linear", ranks=(RANK, MAX_RANK))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, IN, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_the_space_of_one_layer_at_one_rank_has_432_distinct_configs():
    assert len(set(CONFIGS)) == 432


@every_layer
def test_forward_equals_the_dense_reference_on_every_config(linear, by_the_table, form, with_bias, x):
    layer = linear(form, with_bias)
    failing = []
    for config in CONFIGS:
        layer.config = config
        expected = dense_linear(x, layer.weight, layer.bias, **by_the_table(layer, form, config))
        if not close(layer(x), expected):
            failing.append(config.code)
    assert failing == []


@every_layer
def test_gradients_equal_those_through_the_dense_reference_on_every_config(linear, by_the_table, form, with_bias, x):
    layer = linear(form, with_bias)
    x.requires_grad_(True)
    wanted = {"x": x} | dict(layer.support.named_parameters())
    upstream = torch.randn(2, 3, OUT, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    failing = []
    for config in CONFIGS:
        layer.config = config
        reference = dense_linear(x, layer.weight, layer.bias, **by_the_table(layer, form, config))
        expected = torch.autograd.grad((reference * upstream).sum(), wanted.values(), allow_unused=True, materialize_grads=True)
        actual = torch.autograd.grad((layer(x) * upstream).sum(), wanted.values(), allow_unused=True, materialize_grads=True)
        failing += [f"{config.code}: {name}" for name, a, e in zip(wanted, actual, expected, strict=True) if not close(a, e)]
    assert failing == []


@every_layer
def test_merged_weight_and_bias_equal_the_dense_reference_on_every_config(linear, by_the_table, form, with_bias):
    layer = linear(form, with_bias)
    failing = []
    for config in CONFIGS:
        support = by_the_table(layer, form, config)
        weight, bias = layer.merged(config)
        expected_bias = dense_bias(layer.weight, layer.bias, support["C"], support["D"], support["E"])
        if not close(weight, dense_weight(layer.weight, support["A"], support["B"])) or not close(bias, expected_bias):
            failing.append(config.code)
    assert failing == []


@every_layer
def test_a_plain_layer_of_the_merged_weights_computes_what_the_adapted_layer_computes(linear, form, with_bias, x):
    layer = linear(form, with_bias)
    failing = []
    for config in CONFIGS:
        layer.config = config
        if not close(F.linear(x, *layer.merged(config)), layer(x)):
            failing.append(config.code)
    assert failing == []


@every_layer
def test_every_config_computes_what_the_backbones_layer_computes_before_training(linear, form, with_bias, x):
    layer = linear(form, with_bias, random=False)
    expected = F.linear(x, layer.weight, layer.bias)
    failing = []
    for config in CONFIGS:
        layer.config = config
        if not close(layer(x), expected):
            failing.append(config.code)
    assert failing == []


@every_layer
def test_every_config_merges_to_the_backbones_very_numbers_before_training(linear, form, with_bias):
    layer = linear(form, with_bias, random=False).float()
    failing = []
    for config in CONFIGS:
        weight, bias = layer.merged(config)
        asked = with_bias or any(config[tensor].kind != "none" for tensor in "CDE")
        unchanged = bias is None or torch.equal(bias, layer.bias if with_bias else torch.zeros(OUT))
        if not (torch.equal(weight, layer.weight) and (bias is not None) == asked and unchanged):
            failing.append(config.code)
    assert failing == []


@pytest.mark.parametrize("form", ["paper", "normalised"])
def test_counted_parameters_equal_the_stored_numbers_that_receive_a_gradient_on_every_config(linear, form, x):
    layer = linear(form, with_bias=True)
    parameters = list(layer.support.parameters())
    wrong = []
    for config in CONFIGS:
        layer.config = config
        output = layer(x).square().sum()
        reached = 0
        if output.requires_grad:
            gradients = torch.autograd.grad(output, parameters, allow_unused=True)
            reached = sum(int(gradient.count_nonzero()) for gradient in gradients if gradient is not None)
        if reached != config.parameters(IN, OUT):
            wrong.append(f"{config.code}: counted {config.parameters(IN, OUT)}, reached {reached}")
    assert wrong == []


@pytest.mark.parametrize("form", ["paper", "normalised"])
def test_float32_merge_is_the_float64_formula_rounded_once_on_every_config(linear, by_the_table, form):
    layer = linear(form, with_bias=True).float()
    weight0, bias0 = layer.weight.double(), layer.bias.double()
    failing = []
    for config in CONFIGS:
        support = by_the_table(layer, form, config)
        weight, bias = layer.merged(config)
        exact_weight = dense_weight(weight0, support["A"], support["B"])
        exact_bias = dense_bias(weight0, bias0, support["C"], support["D"], support["E"])
        if not (torch.equal(weight, exact_weight.float()) and torch.equal(bias, exact_bias.float())):
            failing.append(config.code)
    assert failing == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("code", ["NNNNN", "L2VNSN", "NNVVV"])
def test_merged_tensors_share_no_memory_with_the_layer(linear, code, dtype):
    layer = linear("normalised", with_bias=True).to(dtype)
    before = [tensor.clone() for tensor in (layer.weight, layer.bias, *layer.support.parameters())]
    for tensor in layer.merged(parse_layer(code)):
        tensor.fill_(7.0)
    after = [layer.weight, layer.bias, *layer.support.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_only_support_tensors_are_parameters_and_the_frozen_weights_are_not_saved(linear):
    layer = linear("normalised", with_bias=True)
    assert all(name.startswith("support.") for name, _ in layer.named_parameters())
    assert all(key.startswith("support.") for key in layer.state_dict())


def test_the_frozen_weights_are_those_of_the_given_layer_not_a_copy():
    plain = nn.Linear(IN, OUT)
    weight, bias = plain.weight.data_ptr(), plain.bias.data_ptr()
    layer = GLoRALinear(plain, {}, "normalised", torch.Generator())
    assert layer.weight.data_ptr() == weight
    assert layer.bias.data_ptr() == bias


@pytest.mark.parametrize("shape", [(IN,), (7, IN), (2, 3, 4, IN)])
def test_any_number_of_leading_dimensions_is_accepted(linear, shape):
    layer = linear("normalised", with_bias=True)
    layer.config = parse_layer("L2VVVV")
    assert layer(torch.ones(shape, dtype=torch.float64)).shape == (*shape[:-1], OUT)
