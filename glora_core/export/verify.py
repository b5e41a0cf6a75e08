"""Does a merged network compute what the unmerged subnet computes?

Three questions, each with a bound that is derived, not chosen, but for `BOUND`:

    numbers    is every number of the merged network its value in float64, rounded once?
    structure  in float64, where rounding is invisible: do all layers agree, and do the logits?
    rounding   in the precision of the export: does every adapted layer, given what the unmerged network gives it, put out what the
               unmerged layer puts out, within `glora_core.layers.bounds`?

How far the logits lie apart in the export's precision is reported and not judged: what a network makes of its layers' roundings
depends on all its weights, and a bound over the whole of it would be either unproved or far too large to tell anything.
Convolutions run without cuDNN here, whose Winograd, FFT and TF32 are no sums of products in their own precision.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from glora_core.backbones import Inputs, run
from glora_core.configs import SubnetConfig
from glora_core.errors import ExportMismatch
from glora_core.layers import GLoRALayer
from glora_core.layers.bounds import merged_bound, output_bound, rounding_bound
from glora_core.space import LayerShape
from glora_core.supernet import Supernet

BOUND = 2.0**-24
"""Largest accepted difference of merged and unmerged logits in float64, as a share of the largest logit: the unit roundoff of float32.

A difference below it cannot be seen in float32. A right merge differs by roundings of 2⁻⁵³, so that there is room for a network that
amplifies them 2²⁹ times, whose float32 logits would be noise, and for one that itself drops to float32 in places (Llama's RMSNorm).
"""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was measured on a merged network that passed.

    Attributes:
        merge_error: largest difference of merged and unmerged logits in the export's precision, as a share of the largest logit.
        worst_layer: the adapted layer whose output came nearest to its bound in that precision; empty if none was called.
        worst_ratio: its largest error as a share of the bound, at most 1.
        structural_error: as `merge_error`, in float64; at most `BOUND`.
    """

    merge_error: float
    worst_layer: str
    worst_ratio: float
    structural_error: float


@dataclass(frozen=True, slots=True)
class Finding:
    """The number that comes nearest to its bound, or furthest beyond it.

    Attributes:
        name: of the tensor or layer that it is in.
        ratio: error over bound; infinite if not a number.
        error, bound: the two.
    """

    name: str
    ratio: float
    error: float
    bound: float

    def require(self, what: str) -> None:
        """Raise ExportMismatch where the error is beyond the bound; `what` says what the name is of."""
        if not self.ratio <= 1:  # also refuses NaN
            raise ExportMismatch(f"{what} {self.name!r}: merged and unmerged differ by {self.error:.3g}; the bound is {self.bound:.3g}")


@torch.no_grad()
def verify(supernet: Supernet, plain: nn.Module, config: SubnetConfig, inputs: Inputs) -> Verification:
    """Compare a merged network with the unmerged subnet.

    Args:
        supernet: switched to `config` and to eval mode.
        plain: a bare network that holds the merged weights, in the precision that is to be exported.
        config: the subnet.
        inputs: examples to run; the first quarter of them also in float64.

    Raises:
        ExportMismatch: something lies beyond its bound; the message names the tensor or layer, the difference and the bound.
    """
    supernet.eval().set_config(config)
    plain.eval()
    exact = supernet.merged_state(config, torch.float64)
    _check_numbers(supernet, plain, config, exact)
    with torch.backends.cudnn.flags(enabled=False):
        structural_error = _check_structure(supernet, plain, _first_quarter(inputs), exact)
        logits, worst = compare_layers(supernet, plain, inputs)
        worst.require(f"in {_dtype(plain)}, layer")
        error = _difference(logits, run(plain, _cast(inputs, _dtype(plain))))
    return Verification(error, worst.name, worst.ratio, structural_error)


@torch.no_grad()
def merge_error(supernet: Supernet, plain: nn.Module, config: SubnetConfig, inputs: Inputs) -> float:
    """Largest absolute difference of merged and unmerged logits over a few examples, relative to the largest logit."""
    supernet.eval().set_config(config)
    unmerged = supernet(_cast(inputs, _dtype(supernet.backbone)))
    return _difference(unmerged, run(plain, _cast(inputs, _dtype(plain))))


@torch.no_grad()
def compare_layers(supernet: Supernet, plain: nn.Module, inputs: Inputs) -> tuple[Tensor, Finding]:
    """Give each adapted layer's merged form, in its own precision, what the unmerged network gives the layer.

    Returns:
        the unmerged logits, and the finding of largest ratio.
    """
    findings = [Finding("", 0.0, 0.0, 0.0)]
    hooks = [_watch(supernet, plain, shape, layer, findings) for shape, layer in supernet.layers()]
    try:
        logits: Tensor = supernet(_cast(inputs, _dtype(supernet.backbone)))
    finally:
        for hook in hooks:
            hook.remove()
    return logits, max(findings, key=lambda finding: finding.ratio)


def _check_numbers(supernet: Supernet, plain: nn.Module, config: SubnetConfig, exact: Mapping[str, Tensor]) -> None:
    """Hold every tensor of the merged network against its value in float64."""
    stored = plain.state_dict()
    if stored.keys() != exact.keys():
        raise ExportMismatch(f"merged weights do not fit the network: they differ in {sorted(stored.keys() ^ exact.keys())}")
    merged = dict(_bounds(supernet, plain, config, exact))
    for name, value in stored.items():
        wanted = exact[name]
        if value.is_floating_point():
            bound = merged[name] if name in merged else rounding_bound(wanted, value.dtype)
            _worst(name, (value.double() - wanted).abs(), bound).require("tensor")
        elif not torch.equal(value, wanted):
            raise ExportMismatch(f"tensor {name!r}: merged and unmerged differ in whole numbers, which merging never changes")


def _bounds(supernet: Supernet, plain: nn.Module, config: SubnetConfig, exact: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The bounds of what merging changes, by the names in the network."""
    for (shape, layer), choice in zip(supernet.layers(), config, strict=True):
        weight, bias = merged_bound(layer, choice, plain.get_parameter(f"{shape.name}.weight").dtype)
        yield f"{shape.name}.weight", weight
        if not shape.absorber:
            yield f"{shape.name}.bias", bias
        else:
            name = f"{shape.absorber}.running_mean"
            yield name, rounding_bound(exact[name], plain.get_buffer(name).dtype) + bias


def _check_structure(supernet: Supernet, plain: nn.Module, inputs: Inputs, exact: Mapping[str, Tensor]) -> float:
    """Compare copies of both networks in float64, layer by layer and at the end; returns the difference of the logits."""
    unmerged, merged = deepcopy(supernet).double(), deepcopy(plain).double()
    merged.load_state_dict(exact)
    inputs = _cast(inputs, torch.float64)
    logits, worst = compare_layers(unmerged, merged, inputs)
    worst.require("in float64, layer")
    error = _difference(logits, run(merged, inputs))
    if not error <= BOUND:  # also refuses NaN
        raise ExportMismatch(f"in float64, merged and unmerged logits differ by {error:.3g} of the largest; the bound is {BOUND:.3g}")
    return error


def _watch(supernet: Supernet, plain: nn.Module, shape: LayerShape, layer: GLoRALayer, findings: list[Finding]) -> RemovableHandle:
    """From now on, each call of an adapted layer adds a finding about its merged form."""
    bare = plain.get_submodule(shape.name)
    dtype = bare.get_parameter("weight").dtype
    allowed = output_bound(layer, layer.config, dtype)

    def compare(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        merged, bound = bare(arguments[0].to(dtype)).double(), allowed.at(layer, arguments[0])
        if shape.absorber:  # what the batch norm subtracts less than before is the bias that the layer did not gain
            own, shifted = (net.get_submodule(shape.absorber).get_buffer("running_mean") for net in (supernet.backbone, plain))
            merged = merged + layer.per_channel(own.double() - shifted.double())
            bound = bound + layer.per_channel(rounding_bound(shifted.double(), shifted.dtype))
        findings.append(_worst(shape.name, (merged - output.double()).abs(), bound))

    return layer.register_forward_hook(compare)


def _worst(name: str, error: Tensor, bound: Tensor) -> Finding:
    """The finding of largest ratio among pairs of an error and its bound; one that is not a number is the largest."""
    ratio = torch.where(error == 0, 0.0, error / bound).nan_to_num(nan=torch.inf).flatten()
    place = int(ratio.argmax())
    return Finding(name, float(ratio[place]), float(error.flatten()[place]), float(bound.expand_as(error).flatten()[place]))


def _difference(unmerged: Tensor, merged: Tensor) -> float:
    unmerged, merged = unmerged.double(), merged.double()
    return float((unmerged - merged).abs().max() / unmerged.abs().max().clamp_min(1e-12))


def _first_quarter(inputs: Inputs) -> Inputs:
    """The first quarter of the examples, at least one."""
    if isinstance(inputs, Tensor):
        return inputs[: max(1, len(inputs) // 4)]
    return {name: value[: max(1, len(value) // 4)] for name, value in inputs.items()}


def _cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """The same inputs with their real numbers in a dtype."""
    if isinstance(inputs, Tensor):
        return inputs.to(dtype)
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype
