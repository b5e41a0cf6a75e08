"""The numbers of one support tensor, apart from any format: found in an adapter, narrowed to the smallest choice that holds
them, and written into a supernet's storage.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from glora_core.configs import KINDS, NONE, SCALAR, VECTOR, Choice, LayerConfig, lora
from glora_core.layers import LayerStorage


@dataclass(frozen=True, slots=True)
class Part:
    """The numbers of one support tensor, as they act.

    Attributes:
        choice: what they are.
        down: (rows, rank) of `lora`, (rows,) of `vector`, () of `scalar`; empty of `none`.
        up: (rank, columns) of `lora`.
    """

    choice: Choice
    down: Tensor
    up: Tensor | None = None


Numbers = Mapping[str, Part]
"""The parts of one layer, by support tensor; those that are `none` may be absent."""


def nothing() -> Part:
    """The part of a tensor that is `none`."""
    return Part(NONE, torch.empty(0))


def constant(tensor: str, values: Tensor) -> Part:
    """The smallest choice for a vector (rows,) or a scalar (): `none` for zeros, `scalar` for equal numbers where there is one."""
    if not values.any():
        return nothing()
    if values.dim() and "scalar" in KINDS[tensor] and bool((values == values[0]).all()):
        values = values[0]
    return Part(VECTOR if values.dim() else SCALAR, values)


def factored(tensor: str, down: Tensor, up: Tensor) -> Part:
    """The smallest choice for a product of factors (rows, rank), (rank, columns): without columns that are zero, and a constant
    where it is one column times ones."""
    used = down.any(0) & up.any(1)
    down, up = down[:, used], up[used]
    if not used.any():
        return nothing()
    if len(up) == 1 and bool((up == 1).all()):
        return constant(tensor, down[:, 0])
    return Part(lora(len(up)), down, up)


def config_of(numbers: Numbers) -> LayerConfig:
    """The layer config that holds the numbers."""
    return LayerConfig(**{tensor: part.choice for tensor, part in numbers.items()})


def fill(storage: LayerStorage, numbers: Numbers) -> None:
    """Write numbers into a storage of the `paper` form, whose numbers act as they are stored."""
    for tensor, part in numbers.items():
        if part.choice.kind != "none":
            storage.write(tensor, part.choice, part.down, part.up)
