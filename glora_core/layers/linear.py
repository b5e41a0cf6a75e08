"""`GLoRALinear`: a frozen linear layer with support tensors, switched between layer configs while it trains.

The forward pass is a faster equivalent of `glora_core.layers.reference`; merging writes plain weights.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glora_core.configs import TENSORS, LayerConfig
from glora_core.layers.reference import dense_bias, dense_weight
from glora_core.layers.storage import LayerStorage, make_storage


class GLoRALinear(nn.Module):
    """A drop-in for `nn.Linear` that computes f(x) of DESIGN §3 under its current layer config.

    Args:
        linear: the layer to adapt; its weight (out, in) and bias (out,) are shared, frozen and never written.
        rank: largest rank of a `lora` choice.
        entanglement: `normalised` or `paper`, see `glora_core.layers.storage`.
        generator: source of the support tensors' initial values.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, rank: int, entanglement: str, generator: torch.Generator) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", linear.weight.detach(), persistent=False)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach(), persistent=False)
        self.support: LayerStorage = make_storage(entanglement, self.in_features, self.out_features, rank, generator)
        self.config = LayerConfig()

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in); returns (..., out).

        Where A is no full matrix, W0 x is computed once and B acts through its factors, so that backward needs no
        gradient of an (out, in) matrix; a low-rank A needs that matrix anyway and takes the dense formula.
        """
        config, support = self.config, self.support
        bias = self._bias()
        if config.A.kind == "lora":
            weight = dense_weight(self.weight, support.acting("A", config.A), support.acting("B", config.B))
            return F.linear(x, weight, bias)
        row = support.acting("A", config.A)
        if row is None:
            y = F.linear(x, self.weight, bias)
        else:
            y = F.linear(x, self.weight) * (1 + (row[:, 0] if row.dim() else row))
            y = y if bias is None else y + bias
        return y if config.B.kind == "none" else y + self._through_b(x)

    def _through_b(self, x: Tensor) -> Tensor:
        """B x by its factors. x: (..., in); returns broadcastable to (..., out)."""
        choice = self.config.B
        if choice.kind == "lora":
            down, up = self.support.factors("B", choice.rank)
            return F.linear(F.linear(x, up), down)
        acting = self.support.acting("B", choice)
        assert acting is not None
        return x.sum(-1, keepdim=True) * (acting[:, 0] if acting.dim() else acting)

    def _bias(self) -> Tensor | None:
        """b_uni of the current config: (out,) or None."""
        config, support = self.config, self.support
        return dense_bias(
            self.weight, self.bias, support.acting("C", config.C), support.acting("D", config.D), support.acting("E", config.E)
        )

    @torch.no_grad()
    def merged(self, config: LayerConfig) -> tuple[Tensor, Tensor | None]:
        """Plain weight (out, in) and bias (out,) of a config.

        Computed in float64 from the untouched W0 and rounded once to the weight's dtype: the rounding of the formula's
        intermediate sums then never shows. The result shares no memory with W0 or the support tensors.
        """
        A, B, C, D, E = (self.support.acting(tensor, config[tensor], torch.float64) for tensor in TENSORS)
        weight, bias = self.weight.double(), None if self.bias is None else self.bias.double()
        merged_bias = dense_bias(weight, bias, C, D, E)
        dtype = self.weight.dtype
        return dense_weight(weight, A, B).to(dtype, copy=True), None if merged_bias is None else merged_bias.to(dtype, copy=True)
