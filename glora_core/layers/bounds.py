"""How far may an adapted layer and its merged form lie apart? Bounds derived from the precision and the layer's size.

Standard forward error analysis (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §2.2 and §3.1): every operation
returns its exact result times 1 + δ plus ε, |δ| ≤ u, |ε| ≤ η, so a sum of products that passes k roundings of unit u and m
additions in an accumulator of unit a is off by at most

    growth(k, m) = (1 + u)^k · (1 + γ_m) − 1,   γ_m = m·a / (1 − m·a)

times the same formula on absolute values, in whatever order the additions are made. With M = |W0|∘(1 + |A|) + |B| and
m = |W0| |c| + |D|∘|b0| + |E| + |b0|, where a low-rank product XY counts as |X||Y|, rank r and fan-in n (per group):

    merged weights    |Ŵ − W_uni|  ≤  u·|W_uni| + η/2 + γ·M,  γ of r + 4 roundings in float64; the same for the bias with r + n + 6 and m
    merged output     growth(3 + cast, n + 2) on |W_uni| |x| + |b_uni|, plus what float64 lost, γ·(M |x| + m)
    unmerged output   growth(11, n + r + 2)   on M |x| + m

The 11: the longest path through `GLoRALayer.forward`, that of W0 c with a low-rank c, is rounded when its factors are cast (2) and
scaled (2), when they and then W0 are multiplied (2), in the sums of the bias (3), when the bias is added, and when B x is.

Assumed, and measured by the tests: products in bfloat16 and float16 add up in float32 and are rounded at the end, as PyTorch's kernels
do (n·2⁻⁸ would exceed 1); convolutions are sums of products, which Winograd's and FFT are not; TF32 is off; nothing overflows.
Underflow: counting every number and every intermediate result as larger by λ = η/u makes the terms in η part of those in u.
Imports only torch and the layers.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from glora_core.configs import TENSORS, LayerConfig
from glora_core.layers.adapted import GLoRALayer
from glora_core.layers.reference import dense_bias, dense_weight

_ROUNDINGS = 11
_DOUBLE = torch.float64


@dataclass(frozen=True, slots=True)
class Precision:
    """What the analysis knows of a dtype.

    Attributes:
        unit: u, half the distance from 1 to the next number.
        accumulator: a, the unit of the type in which sums of products add up.
        grain: the smallest positive number; rounding to the dtype is off by at most half of it where the result is subnormal.
        floor: λ = η/u. η is half the grain in float16, whose subnormals matter and which every kernel keeps; elsewhere the smallest
            normal number, since some kernels (bfloat16 products on AMX and AVX-512) and processes take subnormals for zero.
    """

    unit: float
    accumulator: float
    grain: float
    floor: float

    @staticmethod
    def of(dtype: torch.dtype) -> "Precision":
        """Of float64, float32, bfloat16 or float16."""
        info, single = torch.finfo(dtype), torch.finfo(torch.float32).eps / 2
        unit = info.eps / 2
        grain = info.smallest_normal * info.eps
        return Precision(unit, min(unit, single), grain, info.smallest_normal if dtype == torch.float16 else info.smallest_normal / unit)

    def growth(self, roundings: int, additions: int) -> float:
        """(1 + u)^roundings · (1 + γ_additions) − 1; infinite where the accumulator cannot hold so many additions."""
        summed = additions * self.accumulator
        return math.inf if summed >= 1 else math.expm1(roundings * math.log1p(self.unit) - math.log1p(-summed))


@dataclass(frozen=True, slots=True)
class Bound:
    """An error bound |x| ↦ K(|x| + λ) + k for a layer's output, with K applied as the layer applies its weight.

    Attributes:
        matrix: K, (out, in), float64, not negative.
        constant: k, (out,), float64, not negative.
        floor: λ, of the larger of the precisions that took part.
    """

    matrix: Tensor
    constant: Tensor
    floor: float

    def __add__(self, other: "Bound") -> "Bound":
        return Bound(self.matrix + other.matrix, self.constant + other.constant, max(self.floor, other.floor))

    def at(self, layer: GLoRALayer, x: Tensor) -> Tensor:
        """The bound on each number of the layer's output for an input x, as the layer takes it; float64, of the output's shape."""
        return layer.apply_matrix(x.to(_DOUBLE).abs() + self.floor, self.matrix, self.constant)


def rounding_bound(value: Tensor, dtype: torch.dtype) -> Tensor:
    """u·|value| + η/2: how far a number, rounded once to a dtype, may lie from a value given in float64."""
    precision = Precision.of(dtype)
    return value.abs() * precision.unit + precision.grain / 2


@torch.no_grad()
def merged_bound(layer: GLoRALayer, config: LayerConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """How far `layer.merged(config, dtype)` may lie from the formula's exact value, per number.

    Returns:
        for the weight, in the layer's own layout, and for the bias, (out,); float64.
    """
    exact, bias = layer.merged(config, _DOUBLE)
    lost_weight, lost_bias = _lost_in_float64(layer, config)
    bound = rounding_bound(exact, dtype) + layer.layout(lost_weight)
    return bound, lost_bias if bias is None else rounding_bound(bias, dtype) + lost_bias


@torch.no_grad()
def merged_output_bound(layer: GLoRALayer, config: LayerConfig, dtype: torch.dtype) -> Bound:
    """How far the output of a plain layer of `layer.merged(config, dtype)`, computed in that dtype, may lie from f(x).

    x is given in the weight's dtype; if the two differ, casting x is a rounding too.
    """
    precision, fan_in = Precision.of(dtype), layer.support.in_features
    growth = precision.growth(3 + (dtype != layer.weight.dtype), fan_in + 2)
    weight, bias = layer.merged(config, _DOUBLE)
    lost_weight, lost_bias = _lost_in_float64(layer, config)
    constant = lost_bias if bias is None else bias.abs() + lost_bias
    matrix = layer.matrix(weight).abs() + lost_weight + precision.floor
    intermediate = 4 * precision.floor + fan_in * _accumulator_floor(precision)
    return Bound(growth * matrix + lost_weight, growth * (constant + intermediate) + lost_bias, precision.floor)


@torch.no_grad()
def unmerged_output_bound(layer: GLoRALayer, config: LayerConfig) -> Bound:
    """How far the adapted layer's own output under a config, computed in its weight's dtype, may lie from f(x)."""
    precision, fan_in, rank = Precision.of(layer.weight.dtype), layer.support.in_features, _rank(config)
    matrix, constant = _magnitudes(layer, config, precision.floor)
    growth = precision.growth(_ROUNDINGS, fan_in + rank + 2)
    intermediate = 8 * precision.floor + (fan_in + rank) * _accumulator_floor(precision)
    reach = 1 + _row_sums(layer, config, "A", precision.floor) + _row_sums(layer, config, "B", precision.floor)
    return Bound(growth * (matrix + 2 * precision.floor), growth * (constant + intermediate * reach), precision.floor)


def output_bound(layer: GLoRALayer, config: LayerConfig, dtype: torch.dtype) -> Bound:
    """How far the outputs of the adapted layer and of its merged form in a dtype may lie apart."""
    return merged_output_bound(layer, config, dtype) + unmerged_output_bound(layer, config)


def _lost_in_float64(layer: GLoRALayer, config: LayerConfig) -> tuple[Tensor, Tensor]:
    """What evaluating the formula in float64 may lose: of the weight as a matrix (out, in), and of the bias (out,)."""
    matrix, constant = _magnitudes(layer, config, Precision.of(_DOUBLE).floor)
    weight_growth = Precision.of(_DOUBLE).growth(0, _rank(config) + 4)
    return weight_growth * matrix, Precision.of(_DOUBLE).growth(0, _rank(config) + layer.support.in_features + 6) * constant


def _magnitudes(layer: GLoRALayer, config: LayerConfig, floor: float) -> tuple[Tensor, Tensor]:
    """M, (out, in), and m, (out,): the formula on absolute values, every number and product larger by `floor`."""
    A, B, C, D, E = (_magnitude(layer, config, tensor, floor) for tensor in TENSORS)
    weight = layer.matrix(layer.weight).to(_DOUBLE).abs() + floor
    bias = None if layer.bias is None else layer.bias.to(_DOUBLE).abs() + floor
    constant = dense_bias(weight, bias, C, D, E)
    return dense_weight(weight, A, B), weight.new_zeros(weight.shape[0]) if constant is None else constant


def _magnitude(layer: GLoRALayer, config: LayerConfig, tensor: str, floor: float) -> Tensor | None:
    """|X| of a support tensor as it acts, with |down| |up| for a low-rank one."""
    if config[tensor].kind != "lora":
        acting = layer.support.acting(tensor, config[tensor], _DOUBLE)
        return None if acting is None else acting.abs() + floor
    down, up = layer.support.factors(tensor, config[tensor].rank, _DOUBLE)
    dense = (down.abs() + floor) @ (up.abs() + floor) + floor
    return dense[:, 0] if tensor == "C" else dense


def _row_sums(layer: GLoRALayer, config: LayerConfig, tensor: str, floor: float) -> Tensor:
    """By how much an underflow of what A or B multiplies can grow: (out,), or () where it is the same for all or cannot happen."""
    choice = config[tensor]
    if choice.kind == "lora":
        return (layer.support.factors(tensor, choice.rank, _DOUBLE)[0].abs() + floor).sum(1)
    acting = layer.support.acting(tensor, choice, _DOUBLE)
    return layer.weight.new_zeros((), dtype=_DOUBLE) if acting is None else acting.abs().flatten() + floor


def _rank(config: LayerConfig) -> int:
    return max(config[tensor].rank for tensor in TENSORS)


def _accumulator_floor(precision: Precision) -> float:
    """λ for products inside the accumulator, in units of the outer u: its η over u."""
    single = torch.finfo(torch.float32).smallest_normal
    return precision.floor if precision.accumulator == precision.unit else single / precision.unit
