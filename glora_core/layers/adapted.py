"""`GLoRALayer`: a frozen layer with support tensors, switched between layer configs while it trains.

What the layers of all kinds have in common: the forward pass, a faster equivalent of `glora_core.layers.reference`, and
the merge into plain weights. A kind of layer (`glora_core.layers.kinds`) says how its weight reads as a matrix
(out, in) and how that matrix is applied.
"""

from abc import abstractmethod
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from glora_core.configs import TENSORS, LayerConfig
from glora_core.errors import ExportMismatch
from glora_core.layers.reference import dense_bias, dense_weight
from glora_core.layers.storage import Allowed, LayerStorage, make_storage


class GLoRALayer(nn.Module):
    """A drop-in for a frozen layer that computes f(x) of DESIGN §3 under its current layer config.

    Args:
        module: the layer to adapt; its weight and bias are shared, frozen and never written. The module itself is kept without
            them, for its settings (`geometry`).
        allowed: the choices that each support tensor may have.
        entanglement: `normalised` or `paper`, see `glora_core.layers.storage`.
        generator: source of the support tensors' initial values.

    The support tensors are stored in float32, or in float64 under a float64 weight, and cast to the weight's dtype where
    they act.
    """

    weight: Tensor
    bias: Tensor | None
    factored = True
    """Whether a low-rank B acts through its factors; otherwise its product is added to the weight first."""

    def __init__(self, module: nn.Module, allowed: Allowed, entanglement: str, generator: torch.Generator) -> None:
        super().__init__()
        weight, bias = module.get_parameter("weight").detach(), bias_of(module)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)
        self.geometry = module
        for name in ("weight", "bias"):
            module.register_parameter(name, None)
        out_features, in_features = self.matrix(self.weight).shape
        self.support: LayerStorage = make_storage(entanglement, in_features, out_features, allowed, generator)
        if weight.dtype == torch.float64:
            self.support.double()
        self.config = LayerConfig()

    def __getattr__(self, name: str) -> Any:
        """What the layer it stands for says of itself, such as `kernel_size` or `in_features`: some models ask for it."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            geometry = self.__dict__.get("_modules", {}).get("geometry")
            if geometry is None or name.startswith("_"):
                raise
            return getattr(geometry, name)

    @abstractmethod
    def matrix(self, weight: Tensor) -> Tensor:
        """A weight of the layer's own layout as a matrix (out, in); shares memory."""

    @abstractmethod
    def layout(self, matrix: Tensor) -> Tensor:
        """The inverse of `matrix`, for any number of rows."""

    @abstractmethod
    def apply_matrix(self, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        """What the layer computes with another weight, given as a matrix (rows, in), and a bias (rows,)."""

    @abstractmethod
    def apply_rows(self, y: Tensor, rows: Tensor) -> Tensor:
        """Combine output channels: y has r channels, rows is (out, r); returns `out` channels."""

    @abstractmethod
    def per_channel(self, values: Tensor) -> Tensor:
        """Values (out,) or (), shaped so that they broadcast over the layer's output."""

    def forward(self, x: Tensor) -> Tensor:
        """The adapted layer's output; x as the layer it stands for takes it.

        Where A is no full matrix, W0 x is computed once and B acts through its factors, so that backward needs no
        gradient of an (out, in) matrix; a low-rank A needs that matrix anyway and takes the dense formula.
        """
        config, weight, bias = self.config, self.matrix(self.weight), self._bias()
        dtype = weight.dtype
        if config.A.kind == "lora" or not (self.factored or config.B.kind == "none"):
            acting_a, acting_b = (self.support.acting(tensor, config[tensor], dtype) for tensor in "AB")
            return self.apply_matrix(x, dense_weight(weight, acting_a, acting_b), bias)
        row = self.support.acting("A", config.A, dtype)
        if row is None:
            y = self.apply_matrix(x, weight, bias)
        else:
            y = self.apply_matrix(x, weight, None) * self.per_channel(1 + (row[:, 0] if row.dim() else row))
            y = y if bias is None else y + self.per_channel(bias)
        return y if config.B.kind == "none" else y + self._through_b(x)

    def _through_b(self, x: Tensor) -> Tensor:
        """B x by its factors; broadcastable to the layer's output."""
        choice, dtype = self.config.B, self.weight.dtype
        if choice.kind == "lora":
            down, up = self.support.factors("B", choice.rank, dtype)
            return self.apply_rows(self.apply_matrix(x, up, None), down)
        acting = self.support.acting("B", choice, dtype)
        assert acting is not None
        ones = torch.ones(1, self.support.in_features, dtype=dtype, device=x.device)
        return self.apply_matrix(x, ones, None) * self.per_channel(acting[:, 0] if acting.dim() else acting)

    def _bias(self) -> Tensor | None:
        """b_uni of the current config: (out,) or None."""
        C, D, E = (self.support.acting(tensor, self.config[tensor], self.weight.dtype) for tensor in "CDE")
        return dense_bias(self.matrix(self.weight), self.bias, C, D, E)

    def bare(self) -> nn.Module:
        """A copy of the layer as it was before it was adapted."""
        module = deepcopy(self.geometry)
        for name, value in (("weight", self.weight), ("bias", self.bias)):
            module.register_parameter(name, None if value is None else nn.Parameter(value.clone()))
        return module

    @torch.no_grad()
    def merged(self, config: LayerConfig, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor | None]:
        """Plain weight, in the layer's own layout, and bias (out,) of a config.

        Computed in float64 from the untouched W0 and rounded once, to the weight's dtype or another one. Of float32 numbers
        each product is exact in float64 (24 + 24 bits of 53), so only sums are rounded before the end:

            |Ŵ − W_uni|  ≤  u·|W_uni| + η/2 + 2⁻⁵³·(rank + 4)·(|W0|∘(1 + |A|) + |B|)

        with u and η the unit roundoff and smallest number of the dtype (`glora_core.layers.bounds`). It shares no memory with W0
        or the support tensors.

        Raises:
            ExportMismatch: a value is not finite or too large for the dtype.
        """
        A, B, C, D, E = (self.support.acting(tensor, config[tensor], torch.float64) for tensor in TENSORS)
        matrix, bias = self.matrix(self.weight).double(), None if self.bias is None else self.bias.double()
        merged_bias = dense_bias(matrix, bias, C, D, E)
        dtype = dtype or self.weight.dtype
        weight = rounded(self.layout(dense_weight(matrix, A, B)), dtype)
        return weight, None if merged_bias is None else rounded(merged_bias, dtype)


def rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of float64 values in another dtype, rounded once. Raises ExportMismatch where that loses a value altogether."""
    narrow = dtype in (torch.bfloat16, torch.float16)
    found = (_to_odd(value) if narrow else value).to(dtype, copy=True).contiguous()
    if not bool(found.isfinite().all()):
        largest, limit = float(value.abs().max()), torch.finfo(dtype).max
        raise ExportMismatch(f"a merged value of magnitude {largest:.3g} is beyond {dtype}, whose largest number is {limit:.3g}")
    return found


def _to_odd(value: Tensor) -> Tensor:
    """float64 to float32, where an inexact result is the neighbour whose last bit is 1, so that rounding once more is right.

    PyTorch converts float64 to a 16-bit type by way of float32 and so rounds twice: 1 + 2⁻⁸ + 2⁻⁴⁰ becomes 1 in bfloat16, not
    1 + 2⁻⁷. Rounding to odd first cures that wherever two bits are to spare (Boldo and Melquiond, "Emulation of FMA and
    correctly rounded sums", IEEE Trans. Computers 57(4), 2008).
    """
    nearest = value.to(torch.float32)
    inexact, away = nearest.double() != value, nearest.double().abs() > value.abs()
    bits = nearest.view(torch.int32) - away.int()  # towards zero: the sign is a bit of its own
    return (bits | inexact.int()).view(torch.float32)


def bias_of(module: nn.Module) -> Tensor | None:
    """A module's bias; None if it has none."""
    bias: Tensor | None = module.bias  # type: ignore[assignment]
    return bias
