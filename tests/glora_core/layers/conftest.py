"""The tests' own reading of a layer's stored numbers, and layers of every kind that can be adapted.

The acting tensors are written out here from the table of the design, so that storage, fast forward and merge are all
judged by something that shares no code with them but the dense formula.
"""

import math
from collections.abc import Callable

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from glora_core.configs import TENSORS, Choice, LayerConfig
from glora_core.layers import GLoRALayer, adapt
from glora_core.layers.kinds import matrix_size
from glora_core.space import LayerShape, SearchSpace

Support = dict[str, Tensor | None]

MODULES: dict[str, Callable[[bool], nn.Module]] = {
    "linear": lambda bias: nn.Linear(5, 4, bias),
    "Conv1D": lambda bias: Conv1D(4, 5) if bias else biasless(Conv1D(4, 5)),
    "1x1": lambda bias: nn.Conv2d(5, 4, 1, bias=bias),
    "3x3": lambda bias: nn.Conv2d(2, 4, 3, padding=1, bias=bias),
    "3x1": lambda bias: nn.Conv2d(3, 4, (3, 1), padding=(1, 0), bias=bias),
    "stride": lambda bias: nn.Conv2d(2, 4, 3, stride=(2, 1), padding=1, bias=bias),
    "dilation": lambda bias: nn.Conv2d(2, 4, 3, dilation=2, padding=2, bias=bias),
    "reflect": lambda bias: nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect", bias=bias),
    "circular": lambda bias: nn.Conv2d(2, 4, 3, padding=(2, 1), padding_mode="circular", bias=bias),
    "same": lambda bias: nn.Conv2d(2, 4, (1, 3), padding="same", bias=bias),
    "same, replicate": lambda bias: nn.Conv2d(2, 4, (2, 3), padding="same", padding_mode="replicate", bias=bias),
    "grouped": lambda bias: nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=bias),
    "depthwise": lambda bias: nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=bias),
    "depthwise, doubling": lambda bias: nn.Conv2d(3, 6, 3, stride=2, padding_mode="reflect", padding=1, groups=3, bias=bias),
    "Conv2dSame": lambda bias: Conv2dSame(2, 4, 3, stride=2, bias=bias),
    "Conv2dSame, depthwise": lambda bias: Conv2dSame(4, 4, 3, stride=2, groups=4, bias=bias),
}


def biasless(module: nn.Module) -> nn.Module:
    """Without the bias that Conv1D of transformers always makes."""
    module.bias = None
    return module


@pytest.fixture
def make_module() -> Callable[..., nn.Module]:
    """A factory of plain layers by kind, with reproducible weights in float64."""

    def make(kind: str, with_bias: bool = True) -> nn.Module:
        module = MODULES[kind](with_bias).double()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(generator=generator)
        return module

    return make


@pytest.fixture
def make_layer(make_module: Callable[..., nn.Module]) -> Callable[..., GLoRALayer]:
    """A factory of adapted layers in which every choice is allowed at some ranks, and whose support tensors all differ from zero."""

    def make(kind: str, form: str, with_bias: bool = True, ranks: tuple[int, ...] = (2, 3), random: bool = True) -> GLoRALayer:
        module = make_module(kind, with_bias)
        rows, columns = matrix_size(module)
        (allowed,) = SearchSpace.of([LayerShape("layer", columns, rows)], ranks).choices
        layer = adapt(module, allowed, form, torch.Generator().manual_seed(1))
        if random:
            generator = torch.Generator().manual_seed(2)
            with torch.no_grad():
                for parameter in layer.support.parameters():
                    parameter.normal_(generator=generator)
        return layer

    return make


@pytest.fixture
def by_the_table() -> Callable[[GLoRALayer, str, LayerConfig], Support]:
    """The acting tensors of a config, written out from the design's table, in float64."""

    def acting(layer: GLoRALayer, form: str, config: LayerConfig) -> Support:
        return {tensor: _acting(layer, form, tensor, config[tensor]) for tensor in TENSORS}

    return acting


def _acting(layer: GLoRALayer, form: str, tensor: str, choice: Choice) -> Tensor | None:
    numbers = {name: parameter.double() for name, parameter in layer.support.named_parameters()}
    own, columns = form == "normalised", layer.support.in_features
    scale = 0.25 / math.sqrt(columns) if own and tensor == "C" else 1.0
    if choice.kind == "none":
        return None
    if choice.kind == "lora":
        down, up = (_joined(numbers, f"{tensor}_{part}_", dim) for part, dim in (("down", 1), ("up", 0)))
        if not own:
            down = torch.cat([_first_column(numbers, tensor)[:, None], down], 1)
        product = down[:, : choice.rank] @ up[: choice.rank] * scale
        return product[:, 0] if tensor == "C" else product
    scale = 1 / columns if own and tensor == "B" else scale
    if choice.kind == "vector":
        column = numbers[f"{tensor}_vector"] if own else _first_column(numbers, tensor)
        return (column[:, None] if tensor in "AB" else column) * scale
    return (numbers[f"{tensor}_scalar"] if own else numbers[f"{tensor}_first"][0]) * scale


def _first_column(numbers: dict[str, Tensor], tensor: str) -> Tensor:
    return torch.cat([numbers[f"{tensor}_first"], numbers[f"{tensor}_rest"]])


def _joined(numbers: dict[str, Tensor], prefix: str, dim: int) -> Tensor:
    """All blocks of a factor, side by side in the order of the ranks at which they begin."""
    found = sorted((int(name.removeprefix(prefix)), value) for name, value in numbers.items() if name.startswith(prefix))
    return torch.cat([value for _, value in found], dim)
