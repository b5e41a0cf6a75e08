"""The kinds of layers that can be adapted, and which module is of which kind.

    nn.Linear                    weight (out, in)
    transformers' Conv1D         weight (in, out): a linear layer, transposed, of GPT-2 and its kin
    nn.Conv2d, timm's Conv2dSame weight (out, in / groups, height, width), read as a matrix (out, in / groups · height · width)

A subclass that computes something else with its weight (weight standardisation, a quantised product) is of no kind.
Imports torch and timm.
"""

import torch
from timm.layers import Conv2dSame
from timm.layers.conv2d_same import conv2d_same
from torch import Tensor, nn
from torch.nn import functional as F

from glora_core.errors import BackboneUnsupported
from glora_core.layers.adapted import GLoRALayer
from glora_core.layers.storage import Allowed


class GLoRALinear(GLoRALayer):
    """An adapted `nn.Linear`. x: (..., in); returns (..., out)."""

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight itself."""
        return weight

    def layout(self, matrix: Tensor) -> Tensor:
        """The matrix itself."""
        return matrix

    def apply_matrix(self, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        """x: (..., in); returns (..., rows)."""
        return F.linear(x, matrix, bias)

    def apply_rows(self, y: Tensor, rows: Tensor) -> Tensor:
        """y: (..., r); returns (..., out)."""
        return F.linear(y, rows)

    def per_channel(self, values: Tensor) -> Tensor:
        """The values themselves: channels come last."""
        return values


class GLoRAConv1D(GLoRALinear):
    """An adapted `Conv1D` of transformers. x: (..., in); returns (..., out)."""

    def matrix(self, weight: Tensor) -> Tensor:
        """The transposed weight."""
        return weight.T

    def layout(self, matrix: Tensor) -> Tensor:
        """The transposed matrix."""
        return matrix.T


class GLoRAConv2d(GLoRALayer):
    """An adapted `nn.Conv2d`, of any kernel, stride, padding, dilation and number of groups.

    The formula acts on the kernel element by element; c is one patch that every output position and every group sees.
    x: (n, in, height, width); returns (n, out, height, width).
    """

    def __init__(self, module: nn.Module, allowed: Allowed, entanglement: str, generator: torch.Generator) -> None:
        assert isinstance(module, nn.Conv2d)
        self._kernel = module.weight.shape[1:]
        self.factored = module.groups == 1
        super().__init__(module, allowed, entanglement, generator)

    def matrix(self, weight: Tensor) -> Tensor:
        """The kernel with its dimensions but the first flattened."""
        return weight.flatten(1)

    def layout(self, matrix: Tensor) -> Tensor:
        """The matrix as a kernel."""
        return matrix.reshape(-1, *self._kernel)

    def apply_matrix(self, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        """x: (n, in, height, width); returns (n, rows, height, width)."""
        module, kernel = self.geometry, self.layout(matrix)
        assert isinstance(module, nn.Conv2d)
        if isinstance(module, Conv2dSame):
            same: Tensor = conv2d_same(x, kernel, bias, module.stride, module.padding, module.dilation, module.groups)
            return same
        y: Tensor = module._conv_forward(x, kernel, bias)
        return y

    def apply_rows(self, y: Tensor, rows: Tensor) -> Tensor:
        """y: (n, r, height, width); returns (n, out, height, width)."""
        return F.conv2d(y, rows[:, :, None, None])

    def per_channel(self, values: Tensor) -> Tensor:
        """The values over the channels, which come second."""
        return values[:, None, None] if values.dim() else values


def kind_of(module: nn.Module) -> type[GLoRALinear] | type[GLoRAConv2d] | None:
    """The adapted form of a module; None if it is of no kind that can be adapted."""
    if "weight" not in dict(module.named_parameters(recurse=False)):  # none, or one made from others, as by weight_norm
        return None
    forward = type(module).forward
    if forward is nn.Linear.forward:
        return GLoRALinear
    if forward is nn.Conv2d.forward or forward is Conv2dSame.forward:
        return GLoRAConv2d
    if type(module).__qualname__ == "Conv1D" and type(module).__module__.startswith("transformers."):
        return GLoRAConv1D
    return None


def adapt(module: nn.Module, allowed: Allowed, entanglement: str, generator: torch.Generator) -> GLoRALayer:
    """The adapted form of a layer. Raises BackboneUnsupported for a module of no kind that can be adapted."""
    kind = kind_of(module)
    if kind is None:
        raise BackboneUnsupported(f"{type(module).__name__} cannot be adapted; accepted: nn.Linear, nn.Conv2d, Conv1D of transformers")
    return kind(module, allowed, entanglement, generator)


def matrix_size(module: nn.Module) -> tuple[int, int]:
    """Rows and columns (out, in) of an adaptable module's weight as a matrix."""
    weight = module.get_parameter("weight")
    if kind_of(module) is GLoRAConv1D:
        return weight.shape[1], weight.shape[0]
    return weight.shape[0], weight[0].numel()
