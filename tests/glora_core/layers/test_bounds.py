"""The error bounds of merging: no layer config, kind of layer, precision or size of numbers breaks them, and wrong merges do.

Two things are compared with f(x), evaluated in float64: what the adapted layer computes, and what its merged form computes.
Each has its bound, so that neither can hide in the other's.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import Tensor, nn

from glora_core.configs import KINDS, NONE, TENSORS, Choice, LayerConfig, lora, parse_layer
from glora_core.errors import ExportMismatch
from glora_core.layers import GLoRALayer, adapt, dense_bias, dense_weight
from glora_core.layers.bounds import (
    Precision,
    merged_bound,
    merged_output_bound,
    output_bound,
    rounding_bound,
    unmerged_output_bound,
)
from glora_core.space import LayerShape, SearchSpace

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RANK = 3
CONFIGS = SearchSpace((LayerShape("layer", 8, 6),), ranks=(RANK,)).layer_configs[0]

every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
narrow_dtype = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])


def conv1d() -> nn.Module:
    return pytest.importorskip("transformers.pytorch_utils").Conv1D(6, 24)


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(24, 6), (5, 24)),
    "linear without bias": (lambda: nn.Linear(24, 6, bias=False), (2, 3, 24)),
    "Conv1D": (conv1d, (2, 3, 24)),
    "convolution": (lambda: nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 5)),
    "pointwise": (lambda: nn.Conv2d(8, 6, 1, bias=False), (2, 8, 3, 3)),
    "strided": (lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2)), (2, 4, 7, 7)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (2, 4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), (2, 6, 5, 5)),
    "reflecting": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 5, 5)),
    "same": (lambda: Conv2dSame(4, 6, 3, stride=2), (2, 4, 5, 5)),
}


def scaled(size: float) -> Callable[[nn.Module, torch.Generator], None]:
    def fill(layer: nn.Module, generator: torch.Generator) -> None:
        for numbers in (*layer.support.parameters(), layer.weight, *([] if layer.bias is None else [layer.bias])):
            numbers.normal_(std=size, generator=generator)

    return fill


def denormal(layer: nn.Module, generator: torch.Generator) -> None:
    scaled(1.0)(layer, generator)
    tiny = torch.finfo(layer.weight.dtype).smallest_normal
    for numbers in (*layer.support.parameters(), layer.weight):
        numbers.mul_(tiny / 4)


def opposite(offset: float) -> Callable[[nn.Module, torch.Generator], None]:
    """A is −1 + offset, whichever choice it is, so that W0 cancels."""

    def fill(layer: nn.Module, generator: torch.Generator) -> None:
        scaled(1.0)(layer, generator)
        for name, numbers in layer.support.named_parameters():
            if name.startswith("A_"):
                numbers.fill_(0.0 if "down" in name or "up" in name else offset - 1.0)
            if name.startswith(("A_down", "A_up")):
                numbers.narrow(int("down" in name), 0, 1).fill_(offset - 1.0 if "down" in name else 1.0)

    return fill


def uneven(layer: nn.Module, generator: torch.Generator) -> None:
    """Each number of a size of its own, over eight decades."""
    scaled(1.0)(layer, generator)
    for numbers in (*layer.support.parameters(), layer.weight):
        numbers.mul_(10.0 ** torch.empty(numbers.shape).uniform_(-4, 4, generator=generator))


FILLS = {
    "scale 1": scaled(1.0),
    "scale 1e-4": scaled(1e-4),
    "scale 1e4": scaled(1e4),
    "zeros": scaled(0.0),
    "denormals": denormal,
    "A = -1": opposite(0.0),
    "A = -1 + 1e-6": opposite(1e-6),
    "eight decades": uneven,
}


@torch.no_grad()
def make(module: nn.Module, dtype: torch.dtype, fill: str = "scale 1", ranks: tuple[int, ...] = (RANK,), seed: int = 0) -> GLoRALayer:
    """An adapted layer with all choices, filled."""
    generator = torch.Generator().manual_seed(seed)
    allowed = {tensor: tuple(choice for kind in kinds for choice in choices(kind, ranks)) for tensor, kinds in KINDS.items()}
    layer = adapt(module.to(dtype), allowed, "normalised", generator)
    FILLS[fill](layer, generator)
    return layer


def choices(kind: str, ranks: tuple[int, ...]) -> list[Choice]:
    return [lora(rank) for rank in ranks] if kind == "lora" else [Choice(kind)]


def random_input(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 9) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@torch.no_grad()
def outputs(layer: GLoRALayer, config: LayerConfig, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What the unmerged layer, the merged one in a dtype, and the formula in float64 compute."""
    layer.config = config
    weight, bias = layer.merged(config, dtype)
    exact, exact_bias = layer.merged(config, torch.float64)
    merged = layer.apply_matrix(x.to(dtype), layer.matrix(weight), bias)
    return layer(x), merged, layer.apply_matrix(x.double(), layer.matrix(exact), exact_bias)


def excess(actual: Tensor, expected: Tensor, bound: Tensor) -> float:
    """The largest error as a share of its bound; infinite where an error is not a number."""
    error = (actual.double() - expected.double()).abs()
    return float(torch.where(error == 0, 0.0, error / bound).nan_to_num(nan=math.inf).max())


def compare(layer: GLoRALayer, config: LayerConfig, x: Tensor, dtype: torch.dtype) -> tuple[float, float, float]:
    """Error over bound: of the unmerged layer and of the merged one, each against the formula, and of the two against each other.

    Zero where the formula's value, or a step towards it, is beyond the dtype: the bounds assume no overflow.
    """
    unmerged, merged, exact = outputs(layer, config, x, dtype)
    reference = merged_output_bound(layer, config, torch.float64)
    mine, theirs = unmerged_output_bound(layer, config), merged_output_bound(layer, config, dtype)
    assert bool(merged.isfinite().all()) or float(exact.abs().max()) > 0.99 * torch.finfo(dtype).max
    mine_at, theirs_at, own = (bound.at(layer, x) for bound in (mine, theirs, reference))
    left = excess(unmerged, exact, mine_at + own) if bool(unmerged.isfinite().all()) else 0.0
    right = excess(merged, exact, theirs_at + own) if bool(merged.isfinite().all()) else 0.0
    both = excess(merged, unmerged, mine_at + theirs_at) if bool((merged + unmerged).isfinite().all()) else 0.0
    return left, right, both


def beyond(layer: GLoRALayer, configs: tuple[LayerConfig, ...], x: Tensor, dtype: torch.dtype) -> Iterator[str]:
    """The configs under which a bound is broken; a merge may be refused where a merged number is too large for the dtype."""
    for config in configs:
        try:
            found = compare(layer, config, x, dtype)
        except ExportMismatch:
            weight, bias = layer.merged(config, torch.float64)
            largest = max(float(value.abs().max()) for value in (weight, bias) if value is not None)
            if largest < torch.finfo(dtype).max:
                yield f"{config.code}: refused at {largest:.3g}"
            continue
        if max(found) > 1:
            yield f"{config.code}: {found}"


@every_dtype
@pytest.mark.parametrize("kind", ["linear", "Conv1D", "convolution", "depthwise"])
def test_every_config_stays_within_the_bounds(kind, dtype):
    make_module, shape = MODULES[kind]
    layer = make(make_module(), dtype)
    assert list(beyond(layer, CONFIGS, random_input(shape, dtype), dtype)) == []


@every_dtype
@pytest.mark.parametrize("fill", [name for name in FILLS if name != "scale 1"])
def test_every_config_stays_within_the_bounds_under_extreme_weights(fill, dtype):
    layer = make(nn.Linear(24, 6), dtype, fill)
    assert list(beyond(layer, CONFIGS, random_input((5, 24), dtype), dtype)) == []


@every_dtype
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("kind", [name for name in MODULES if name != "linear"])
def test_extreme_weights_stay_within_the_bounds_on_every_kind_of_layer(kind, fill, dtype):
    make_module, shape = MODULES[kind]
    layer = make(make_module(), dtype, fill, seed=1)
    assert list(beyond(layer, CONFIGS[::61], random_input(shape, dtype), dtype)) == []


@narrow_dtype
@pytest.mark.parametrize("fill", FILLS)
def test_a_merge_into_a_narrower_type_than_the_backbones_stays_within_the_bounds(fill, dtype):
    layer = make(nn.Linear(24, 6), torch.float32, fill)
    assert list(beyond(layer, CONFIGS[::5], random_input((5, 24), torch.float32), dtype)) == []


@every_dtype
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e2, 1e4])
def test_extreme_inputs_stay_within_the_bounds(size, dtype):
    layer = make(nn.Linear(24, 6), dtype)
    assert list(beyond(layer, CONFIGS[::5], (random_input((5, 24), torch.float32) * size).to(dtype), dtype)) == []


@every_dtype
@pytest.mark.parametrize("code", ["L48L48L48SV", "NL48L48NN", "L1L24L12VS"])
def test_ranks_up_to_twice_the_layers_width_stay_within_the_bounds(code, dtype):
    layer = make(nn.Linear(24, 24), dtype, ranks=(1, 12, 24, 48))
    assert list(beyond(layer, (parse_layer(code),), random_input((5, 24), dtype), dtype)) == []


@every_dtype
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (4096, 8)])
def test_layers_from_one_input_to_thousands_stay_within_the_bounds(size, dtype):
    layer = make(nn.Linear(*size), dtype)
    assert list(beyond(layer, CONFIGS[::43], random_input((3, size[0]), dtype), dtype)) == []


@settings(max_examples=60)
@given(
    rows=st.integers(1, 9),
    fan_in=st.integers(1, 40),
    rank=st.integers(1, 50),
    config=st.sampled_from(CONFIGS),
    dtype=st.sampled_from(list(DTYPES.values())),
    fill=st.sampled_from(list(FILLS)),
    seed=st.integers(0, 999),
)
def test_any_shape_and_any_numbers_stay_within_the_bounds(rows, fan_in, rank, config, dtype, fill, seed):
    layer = make(nn.Linear(fan_in, rows, bias=seed % 2 == 0), dtype, fill, (rank,), seed)
    chosen = LayerConfig(*(lora(rank) if config[tensor].kind == "lora" else config[tensor] for tensor in TENSORS))
    assert list(beyond(layer, (chosen,), random_input((2, fan_in), dtype, seed), dtype)) == []


def fractions(values: Tensor) -> list[Fraction]:
    return [Fraction(value) for value in values.detach().double().flatten().tolist()]


def exact_weight(layer: GLoRALayer, config: LayerConfig) -> list[Fraction]:
    """W0 + W0∘A + B in rational numbers, row by row; A and B by their stored numbers at scale 1."""
    rows, columns = layer.weight.shape
    support = {}
    for tensor in "AB":
        down, up = (fractions(factor) for factor in layer.support.factors(tensor, RANK, torch.float64))
        product = [sum(down[i * RANK + k] * up[k * columns + j] for k in range(RANK)) for i in range(rows) for j in range(columns)]
        support[tensor] = product if config[tensor].kind == "lora" else [Fraction(0)] * (rows * columns)
    return [w + w * a + b for w, a, b in zip(fractions(layer.weight), support["A"], support["B"], strict=True)]


@settings(max_examples=60)
@given(
    code=st.sampled_from(["NNNNN", "L3NNNN", "NL3NNN", "L3L3NNN"]),
    dtype=st.sampled_from(list(DTYPES.values())),
    fill=st.sampled_from([name for name in FILLS if name != "scale 1e4"]),
    seed=st.integers(0, 999),
)
def test_merged_numbers_lie_within_their_bound_of_the_formula_in_rational_numbers(code, dtype, fill, seed):
    layer, config = make(nn.Linear(4, 3), torch.float32, fill, seed=seed), parse_layer(code)
    try:
        weight, _ = layer.merged(config, dtype)
    except ExportMismatch:
        return
    bound, _ = merged_bound(layer, config, dtype)
    errors = [abs(m - e) for m, e in zip(fractions(weight), exact_weight(layer, config), strict=True)]
    assert all(error <= allowed for error, allowed in zip(errors, fractions(bound), strict=True))


@narrow_dtype
def test_a_merged_number_is_rounded_once_even_where_float32_lies_on_a_tie(dtype):
    unit = torch.finfo(dtype).eps / 2
    layer = make(nn.Linear(1, 1, bias=False), torch.float64, "zeros")
    layer.weight.fill_(1 + unit + 2.0**-40)
    assert torch.tensor(1 + unit + 2.0**-40, dtype=torch.float64).to(dtype) == 1  # by way of float32
    assert layer.merged(LayerConfig(), dtype)[0] == 1 + 2 * unit


@narrow_dtype
def test_rounding_once_is_to_the_nearest_number_with_its_sign_infinity_and_zero(dtype):
    info = torch.finfo(dtype)
    numbers = torch.cat([torch.randn(20_000, generator=torch.Generator().manual_seed(0)).double().exp(), torch.zeros(1)])
    layer = make(nn.Linear(1, 1, bias=False), torch.float64, "zeros")
    largest = torch.tensor([info.max, -info.max])
    layer.weight = torch.cat([numbers, -numbers / 3, numbers * info.smallest_normal / 3, -numbers * 1e-300, largest])[:, None]
    rounded = layer.merged(LayerConfig(), dtype)[0]
    assert bool(((rounded.double() - layer.weight).abs() <= rounding_bound(layer.weight, dtype)).all())
    assert bool((rounded.signbit() == layer.weight.signbit()).all())


@every_dtype
@pytest.mark.parametrize("kind", ["linear", "Conv1D", "convolution", "depthwise"])
def test_the_bounds_are_at_most_a_hundred_times_what_is_observed(kind, dtype):
    make_module, shape = MODULES[kind]
    layer = make(make_module(), dtype)
    found = [compare(layer, config, random_input(shape, dtype), dtype) for config in CONFIGS[::7]]
    assert max(both for _, _, both in found) > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["float32", "bfloat16", "float16"])
def test_the_bound_grows_with_the_width_as_the_accumulator_rounds(dtype):
    narrow, wide = (Precision.of(dtype).growth(4, fan_in) for fan_in in (64, 4096))
    assert wide - narrow == pytest.approx(4032 * Precision.of(dtype).accumulator, rel=0.02)


def test_the_bound_is_infinite_where_the_accumulator_cannot_hold_the_sum():
    assert Precision.of(torch.float32).growth(1, 2**24) == math.inf


@narrow_dtype
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 33])
def test_products_in_sixteen_bits_add_up_in_float32_on_this_machine(rows, transposed, dtype):
    """What the bounds assume: ones, added up in the type itself, would stop at 256 in bfloat16 and at 2048 in float16."""
    weight = torch.ones(4096, 16, dtype=dtype).T if transposed else torch.ones(16, 4096, dtype=dtype)
    x = torch.ones(rows, 4096, dtype=dtype)
    found = (nn.functional.linear(x, weight), nn.functional.linear(x, weight, torch.zeros(16, dtype=dtype)), weight @ x[0], weight @ x.T)
    assert all(bool((result == 4096).all()) for result in found)


@narrow_dtype
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_in_sixteen_bits_add_up_in_float32_on_this_machine(groups, dtype):
    kernel = torch.ones(8, 1024, 2, 2, dtype=dtype)
    assert bool((nn.functional.conv2d(torch.ones(1, 1024 * groups, 3, 3, dtype=dtype), kernel, groups=groups) == 4096).all())


def forget(tensor: str) -> Callable[[GLoRALayer, LayerConfig, torch.dtype], tuple[Tensor, Tensor | None]]:
    return lambda layer, config, dtype: layer.merged(LayerConfig(**{t: NONE if t == tensor else config[t] for t in TENSORS}), dtype)


def added_twice(layer: GLoRALayer, config: LayerConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    (weight, bias), (plain, _) = layer.merged(config, torch.float64), layer.merged(LayerConfig(), torch.float64)
    return (2 * weight - plain).to(dtype), None if bias is None else bias.to(dtype)


def sign_of_a(layer: GLoRALayer, config: LayerConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    (weight, bias), A = layer.merged(config, torch.float64), layer.support.acting("A", config.A, torch.float64)
    return (weight - 2 * layer.layout(layer.matrix(layer.weight).double() * A)).to(dtype), None if bias is None else bias.to(dtype)


def in_the_type_itself(layer: GLoRALayer, config: LayerConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    A, B, C, D, E = (layer.support.acting(tensor, config[tensor], dtype) for tensor in TENSORS)
    return layer.layout(dense_weight(layer.matrix(layer.weight), A, B)), dense_bias(layer.matrix(layer.weight), layer.bias, C, D, E)


def recovered_by_division(layer: GLoRALayer, config: LayerConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """W0 taken back out of the merged weights before the next merge, as libraries do that merge in place."""
    weight, bias = layer.merged(config, dtype)
    A, B = (layer.support.acting(tensor, config[tensor], dtype) for tensor in "AB")
    recovered = (layer.matrix(weight) - B) / (1 + A)
    return layer.layout(dense_weight(recovered, A, B)), bias


FORGOTTEN = {f"{tensor} forgotten": forget(tensor) for tensor in TENSORS}
STRUCTURAL = {**FORGOTTEN, "added twice": added_twice, "sign of A": sign_of_a}
LOSSY = {"in the type itself": in_the_type_itself, "recovered by division": recovered_by_division}


@every_dtype
@pytest.mark.parametrize("wrong", STRUCTURAL.values(), ids=STRUCTURAL.keys())
@torch.no_grad()
def test_the_output_of_a_wrong_merge_lies_beyond_the_bound(wrong, dtype):
    layer, config, x = make(nn.Linear(24, 6), dtype), parse_layer("VL3VVV"), random_input((64, 24), dtype)
    x = torch.cat([x, x / 64])  # a bias shows in bfloat16 where the input is small
    weight, bias = wrong(layer, config, dtype)
    layer.config = config
    bound = output_bound(layer, config, dtype).at(layer, x)
    assert excess(layer.apply_matrix(x, layer.matrix(weight), bias), layer(x), bound) > 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("wrong", LOSSY.values(), ids=LOSSY.keys())
@pytest.mark.parametrize("code", ["VL3VVV", "L3L3VSV", "SVL3SS"])
@torch.no_grad()
def test_the_numbers_of_a_lossy_merge_lie_beyond_the_bound(wrong, dtype, code):
    layer, config = make(nn.Linear(24, 6), dtype), parse_layer(code)
    weight, _ = wrong(layer, config, dtype)
    bound, _ = merged_bound(layer, config, dtype)
    assert excess(weight, layer.merged(config, torch.float64)[0], bound) > 1.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["float32", "bfloat16", "float16"])
@torch.no_grad()
def test_where_w0_cancels_a_merge_in_the_type_itself_is_beyond_the_bound_of_the_output_too(dtype):
    layer, config, x = make(nn.Linear(24, 6, bias=False), dtype), parse_layer("VNNNN"), random_input((64, 24), dtype)
    layer.support.get_parameter("A_vector").fill_(torch.finfo(dtype).eps / 2 - 1)
    weight, _ = in_the_type_itself(layer, config, dtype)
    _, right, exact = outputs(layer, config, x, dtype)
    bound = merged_output_bound(layer, config, dtype).at(layer, x)
    assert excess(layer.apply_matrix(x, weight, None), exact, bound) > 10
    assert excess(right, exact, bound) <= 1
