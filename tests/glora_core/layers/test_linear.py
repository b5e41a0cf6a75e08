"""`GLoRALinear` on all 432 layer configs: forward, gradients, merge and counts, against the dense reference in float64.

The acting tensors are written out here from the table of the design, so that storage, fast forward and merge are all
judged by something that shares no code with them but the dense formula.
"""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glora_core.configs import TENSORS, Choice, LayerConfig, parse_layer
from glora_core.layers import GLoRALinear, dense_bias, dense_linear, dense_weight
from glora_core.space import LayerShape, SearchSpace

IN, OUT, RANK, MAX_RANK = 5, 4, 2, 3
CONFIGS = SearchSpace((LayerShape("layer", IN, OUT),), ranks=(RANK,)).layer_configs
TIGHT = {"rtol": 1e-12, "atol": 1e-12}  # float64: dot products of at most 5 terms of size 1, far below 1e-12

every_layer = pytest.mark.parametrize(
    ("form", "with_bias"), [("paper", True), ("paper", False), ("normalised", True), ("normalised", False)]
)


def make_layer(form: str, with_bias: bool, dtype: torch.dtype = torch.float64, random: bool = True) -> GLoRALinear:
    """A layer whose support tensors all differ from zero; its rank exceeds that of the configs, so that slices are real."""
    torch.manual_seed(0)
    layer = GLoRALinear(nn.Linear(IN, OUT, bias=with_bias), MAX_RANK, form, torch.Generator().manual_seed(1)).to(dtype)
    if random:
        with torch.no_grad():
            for parameter in layer.support.parameters():
                parameter.normal_()
    return layer


def by_the_table(layer: GLoRALinear, form: str, tensor: str, choice: Choice) -> Tensor | None:
    """The acting tensor of a choice, written out from the design's table, in float64."""
    numbers = {name: parameter.double() for name, parameter in layer.support.named_parameters()}
    own = form == "normalised"
    scale = 0.25 / math.sqrt(IN) if own and tensor == "C" else 1.0
    if choice.kind == "none":
        return None
    if choice.kind == "lora":
        product = numbers[f"{tensor}_down"][:, : choice.rank] @ (numbers[f"{tensor}_up"][: choice.rank]) * scale
        return product[:, 0] if tensor == "C" else product
    scale = 1 / IN if own and tensor == "B" else scale
    column = numbers[f"{tensor}_vector"] if own or tensor in "DE" else numbers[f"{tensor}_down"][:, 0]
    if choice.kind == "vector":
        return (column[:, None] if tensor in "AB" else column) * scale
    return (numbers[f"{tensor}_scalar"] if own else column[0]) * scale


def support_of(layer: GLoRALinear, form: str, config: LayerConfig) -> dict[str, Tensor | None]:
    return {tensor: by_the_table(layer, form, tensor, config[tensor]) for tensor in TENSORS}


def close(actual: Tensor | None, expected: Tensor | None) -> bool:
    if actual is None or expected is None:
        return actual is expected
    return actual.shape == expected.shape and torch.allclose(actual, expected, **TIGHT)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, IN, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_the_space_of_one_layer_at_one_rank_has_432_distinct_configs():
    assert len(set(CONFIGS)) == 432


@every_layer
def test_forward_equals_the_dense_reference_on_every_config(form, with_bias, x):
    layer = make_layer(form, with_bias)
    failing = []
    for config in CONFIGS:
        layer.config = config
        expected = dense_linear(x, layer.weight, layer.bias, **support_of(layer, form, config))
        if not close(layer(x), expected):
            failing.append(config.code)
    assert failing == []


@every_layer
def test_gradients_equal_those_through_the_dense_reference_on_every_config(form, with_bias, x):
    layer = make_layer(form, with_bias)
    x.requires_grad_(True)
    wanted = {"x": x} | dict(layer.support.named_parameters())
    upstream = torch.randn(2, 3, OUT, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    failing = []
    for config in CONFIGS:
        layer.config = config
        reference = dense_linear(x, layer.weight, layer.bias, **support_of(layer, form, config))
        expected = torch.autograd.grad((reference * upstream).sum(), wanted.values(), allow_unused=True, materialize_grads=True)
        actual = torch.autograd.grad((layer(x) * upstream).sum(), wanted.values(), allow_unused=True, materialize_grads=True)
        failing += [f"{config.code}: {name}" for name, a, e in zip(wanted, actual, expected, strict=True) if not close(a, e)]
    assert failing == []


@every_layer
def test_merged_weight_and_bias_equal_the_dense_reference_on_every_config(form, with_bias):
    layer = make_layer(form, with_bias)
    failing = []
    for config in CONFIGS:
        support = support_of(layer, form, config)
        weight, bias = layer.merged(config)
        expected_bias = dense_bias(layer.weight, layer.bias, support["C"], support["D"], support["E"])
        if not close(weight, dense_weight(layer.weight, support["A"], support["B"])) or not close(bias, expected_bias):
            failing.append(config.code)
    assert failing == []


@every_layer
def test_a_plain_layer_of_the_merged_weights_computes_what_the_adapted_layer_computes(form, with_bias, x):
    layer = make_layer(form, with_bias)
    failing = []
    for config in CONFIGS:
        layer.config = config
        if not close(F.linear(x, *layer.merged(config)), layer(x)):
            failing.append(config.code)
    assert failing == []


@every_layer
def test_every_config_computes_what_the_backbones_layer_computes_before_training(form, with_bias, x):
    layer = make_layer(form, with_bias, random=False)
    expected = F.linear(x, layer.weight, layer.bias)
    failing = []
    for config in CONFIGS:
        layer.config = config
        if not close(layer(x), expected):
            failing.append(config.code)
    assert failing == []


@every_layer
def test_every_config_merges_to_the_backbones_very_numbers_before_training(form, with_bias):
    layer = make_layer(form, with_bias, torch.float32, random=False)
    failing = []
    for config in CONFIGS:
        weight, bias = layer.merged(config)
        asked = with_bias or any(config[tensor].kind != "none" for tensor in "CDE")
        unchanged = bias is None or torch.equal(bias, layer.bias if with_bias else torch.zeros(OUT))
        if not (torch.equal(weight, layer.weight) and (bias is not None) == asked and unchanged):
            failing.append(config.code)
    assert failing == []


@pytest.mark.parametrize("form", ["paper", "normalised"])
def test_counted_parameters_equal_the_stored_numbers_that_receive_a_gradient_on_every_config(form, x):
    layer = make_layer(form, with_bias=True)
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
def test_float32_merge_is_the_float64_formula_rounded_once_on_every_config(form):
    layer = make_layer(form, with_bias=True, dtype=torch.float32)
    weight0, bias0 = layer.weight.double(), layer.bias.double()
    failing = []
    for config in CONFIGS:
        support = support_of(layer, form, config)
        weight, bias = layer.merged(config)
        exact_weight = dense_weight(weight0, support["A"], support["B"])
        exact_bias = dense_bias(weight0, bias0, support["C"], support["D"], support["E"])
        if not (torch.equal(weight, exact_weight.float()) and torch.equal(bias, exact_bias.float())):
            failing.append(config.code)
    assert failing == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("code", ["NNNNN", "L2VNSN", "NNVVV"])
def test_merged_tensors_share_no_memory_with_the_layer(code, dtype):
    layer = make_layer("normalised", with_bias=True, dtype=dtype)
    before = [tensor.clone() for tensor in (layer.weight, layer.bias, *layer.support.parameters())]
    for tensor in layer.merged(parse_layer(code)):
        tensor.fill_(7.0)
    after = [layer.weight, layer.bias, *layer.support.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_only_support_tensors_are_parameters_and_the_frozen_weights_are_not_saved():
    layer = make_layer("normalised", with_bias=True)
    assert all(name.startswith("support.") for name, _ in layer.named_parameters())
    assert all(key.startswith("support.") for key in layer.state_dict())


def test_the_frozen_weights_are_those_of_the_given_layer_not_a_copy():
    linear = nn.Linear(IN, OUT)
    layer = GLoRALinear(linear, MAX_RANK, "normalised", torch.Generator())
    assert layer.weight.data_ptr() == linear.weight.data_ptr()
    assert layer.bias.data_ptr() == linear.bias.data_ptr()


@pytest.mark.parametrize("shape", [(IN,), (7, IN), (2, 3, 4, IN)])
def test_any_number_of_leading_dimensions_is_accepted(shape):
    layer = make_layer("normalised", with_bias=True)
    layer.config = parse_layer("L2VVVV")
    assert layer(torch.ones(shape, dtype=torch.float64)).shape == (*shape[:-1], OUT)
