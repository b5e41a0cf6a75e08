"""Where the numbers of A–E live, and what they share: the two forms of weight entanglement (DESIGN §3).

A storage answers one question: which tensors act for a given choice. `LayerStorage` has what is common to both;
`PaperStorage` and `NormalisedStorage` say which numbers a choice reads and at what scale. Numbers are kept in blocks,
one parameter for each part that some choice can use without the rest: a training step gives a gradient to the blocks
that its subnet uses and to no other, so that weight decay, optimiser state and clipping never touch an unused number.
Knows nothing of the formula; imports only torch and the space's vocabulary.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from glora_core.configs import NONE, TENSORS, Choice, LayerConfig
from glora_core.errors import ConfigInvalid

Allowed = Mapping[str, tuple[Choice, ...]]
"""Choices per support tensor, as `SearchSpace.choices` has them for each layer."""
KINDS = ("lora", "vector", "scalar")


class LayerStorage(nn.Module):
    """The trainable numbers of one adapted layer: those that some allowed choice reads, and no others.

    Every `…_down` starts at zero, every `…_up` by Xavier, vectors and scalars at zero, so that each subnet equals the
    backbone before training (`glora_core.calibration` may write another `…_up` of B).

    Args:
        in_features, out_features: size of the layer's weight as a matrix.
        allowed: the choices that each tensor may have.
        generator: source of the initial values.
    """

    _apart = 0
    """How many leading columns of a left factor are kept outside its blocks."""

    def __init__(self, in_features: int, out_features: int, allowed: Allowed, generator: torch.Generator) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._steps: dict[str, list[int]] = {}
        for tensor in TENSORS:
            choices = allowed.get(tensor, (NONE,))
            kinds, ranks = {choice.kind for choice in choices}, sorted({choice.rank for choice in choices} - {0})
            self._add_vectors(tensor, kinds)
            if ranks:
                self._add_factors(tensor, [0, *ranks], generator)

    def rows(self, tensor: str) -> int:
        """Length of the tensor's vector, which is also the height of its `down` factor."""
        return self.in_features if tensor == "C" else self.out_features

    def rank(self, tensor: str) -> int:
        """The highest rank that the tensor may have here; 0 if it is never `lora`."""
        return self._steps.get(tensor, [0])[-1]

    def columns(self, tensor: str) -> int:
        """Width of the tensor's `up` factor."""
        return 1 if tensor == "C" else self.in_features

    @abstractmethod
    def _add_vectors(self, tensor: str, kinds: set[str]) -> None:
        """Register the blocks of a tensor's vector and scalar choices, as far as allowed."""

    def _add_factors(self, tensor: str, steps: Sequence[int], generator: torch.Generator) -> None:
        """Register the blocks of a tensor's factors, one for the columns between each rank and the next."""
        whole = xavier(steps[-1], self.columns(tensor), generator)
        self._steps[tensor] = list(steps)
        for low, high in pairwise(steps):
            if high > self._apart:
                self._add(f"{tensor}_down_{low}", torch.zeros(self.rows(tensor), high - max(low, self._apart)))
            self._add(f"{tensor}_up_{low}", whole[low:high].clone())

    def _add(self, name: str, value: Tensor) -> None:
        self.register_parameter(name, nn.Parameter(value))

    def _blocks(self, tensor: str, part: str, rank: int) -> list[Tensor]:
        """The blocks of a factor up to a rank, in order."""
        names = (f"{tensor}_{part}_{low}" for low in self._steps[tensor] if low < rank)
        return [block for name in names if (block := self._parameters.get(name)) is not None]

    def down(self, tensor: str, rank: int) -> Tensor:
        """The first `rank` columns of the left factor: (rows, rank)."""
        return _join(self._blocks(tensor, "down", rank), 1)

    def up(self, tensor: str, rank: int) -> Tensor:
        """The first `rank` rows of the right factor, before scaling: (rank, columns)."""
        return _join(self._blocks(tensor, "up", rank), 0)

    @abstractmethod
    def column(self, tensor: str) -> Tensor:
        """The `vector` choice before scaling: (rows,)."""

    @abstractmethod
    def element(self, tensor: str) -> Tensor:
        """The `scalar` choice before scaling: ()."""

    @abstractmethod
    def scale(self, tensor: str, kind: str) -> float:
        """Fixed factor between the stored number and the number that acts."""

    def factors(self, tensor: str, rank: int, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """The two factors of a `lora` choice as they act: (rows, rank), (rank, columns).

        `dtype` is the precision to compute in; the stored one unless given.
        """
        down, up = self.down(tensor, rank), self.up(tensor, rank)
        dtype = dtype or down.dtype
        return down.to(dtype), up.to(dtype) * self.scale(tensor, "lora")

    def acting(self, tensor: str, choice: Choice, dtype: torch.dtype | None = None) -> Tensor | None:
        """The support tensor as it acts: A, B broadcastable to (out, in), C (in,), D and E broadcastable to (out,); None for `none`.

        `dtype` is the precision to compute in; the stored one unless given.
        """
        if choice.kind == "none":
            return None
        if choice.kind == "lora":
            down, up = self.factors(tensor, choice.rank, dtype)
            dense = down @ up
            return dense[:, 0] if tensor == "C" else dense
        stored = self.column(tensor) if choice.kind == "vector" else self.element(tensor)
        value = stored.to(dtype or stored.dtype) * self.scale(tensor, choice.kind)
        return value[:, None] if choice.kind == "vector" and tensor in "AB" else value

    @torch.no_grad()
    def write(self, tensor: str, choice: Choice, values: Tensor, up: Tensor | None = None) -> None:
        """Set the numbers that a choice other than `none` reads, before scaling; this storage must allow it.

        values: (rows, rank) of `lora`, with up: (rank, columns); (rows,) of `vector`; () of `scalar`.
        """
        if up is not None:
            _spread(self._blocks(tensor, "down", choice.rank), values[:, self._apart :], 1)
            _spread(self._blocks(tensor, "up", choice.rank), up, 0)
        self._write_outside(tensor, choice.kind, values)

    @abstractmethod
    def _write_outside(self, tensor: str, kind: str, values: Tensor) -> None:
        """Set the numbers outside the blocks of factors that a kind of choice reads."""

    @property
    def untrained(self) -> bool:
        """Whether every subnet is still the backbone: all that starts at zero is zero."""
        return not any(bool(parameter.any()) for name, parameter in self.named_parameters() if "_up_" not in name)

    def copy_slice(self, source: "LayerStorage", config: LayerConfig) -> None:
        """Take over from a storage of the same form the numbers that a config uses; both storages must allow that config."""
        for tensor in TENSORS:
            choice = config[tensor]
            if choice.kind == "lora":
                self.write(tensor, choice, source.down(tensor, choice.rank), source.up(tensor, choice.rank))
            elif choice.kind != "none":
                self.write(tensor, choice, source.column(tensor) if choice.kind == "vector" else source.element(tensor))


class PaperStorage(LayerStorage):
    """All choices of one tensor share storage, as in the authors' code.

    The vector is the first column of the left factor, the scalar its first element; each is a block of its own.
    """

    _apart = 1

    def _add_vectors(self, tensor: str, kinds: set[str]) -> None:
        if kinds & {"lora", "vector", "scalar"}:
            self._add(f"{tensor}_first", torch.zeros(1))
        if kinds & {"lora", "vector"}:
            self._add(f"{tensor}_rest", torch.zeros(self.rows(tensor) - 1))

    def down(self, tensor: str, rank: int) -> Tensor:
        """The vector as first column, and the others."""
        return torch.cat([self.column(tensor)[:, None], *self._blocks(tensor, "down", rank)], 1)

    def column(self, tensor: str) -> Tensor:
        """First column of the tensor's storage."""
        return torch.cat([self.get_parameter(f"{tensor}_first"), self.get_parameter(f"{tensor}_rest")])

    def element(self, tensor: str) -> Tensor:
        """First element of the tensor's storage."""
        return self.get_parameter(f"{tensor}_first")[0]

    def scale(self, tensor: str, kind: str) -> float:
        """Always 1: the numbers act as they are stored."""
        return 1.0

    def _write_outside(self, tensor: str, kind: str, values: Tensor) -> None:
        column = values[:, 0] if kind == "lora" else values.reshape(-1)
        self.get_parameter(f"{tensor}_first").copy_(column[:1])
        if kind != "scalar":
            self.get_parameter(f"{tensor}_rest").copy_(column[1:])


class NormalisedStorage(LayerStorage):
    """Each kind of choice has numbers of its own, scaled so that one optimiser step moves the layer's output alike whichever is active.

    An adaptive optimiser moves every stored number by about the learning rate, whatever that does to the output. The scales make up
    for it; `glora_core.calibration` measures them on training examples. Until then, a vector or scalar of B, which adds its entry times the
    sum of all inputs, has 1/in, C, which adds W0 c, has 1/(4·√in), and the rest 1.
    """

    def __init__(self, in_features: int, out_features: int, allowed: Allowed, generator: torch.Generator) -> None:
        super().__init__(in_features, out_features, allowed, generator)
        known = {"B": {"vector": 1.0 / in_features, "scalar": 1.0 / in_features}, "C": dict.fromkeys(KINDS, 0.25 / math.sqrt(in_features))}
        self._scales = {(tensor, kind): known.get(tensor, {}).get(kind, 1.0) for tensor in TENSORS for kind in KINDS}

    def copy_slice(self, source: LayerStorage, config: LayerConfig) -> None:
        """As in `LayerStorage`; the scales are taken over too."""
        super().copy_slice(source, config)
        if isinstance(source, NormalisedStorage):
            self.scales = source.scales

    @property
    def scales(self) -> Tensor:
        """All scales, (5 tensors, 3 kinds), float64, in the order of `TENSORS` and `KINDS`."""
        return torch.tensor(list(self._scales.values()), dtype=torch.float64).view(len(TENSORS), len(KINDS))

    @scales.setter
    def scales(self, values: Tensor) -> None:
        self._scales = dict(zip(self._scales, values.flatten().tolist(), strict=True))

    def _add_vectors(self, tensor: str, kinds: set[str]) -> None:
        if "vector" in kinds:
            self._add(f"{tensor}_vector", torch.zeros(self.rows(tensor)))
        if "scalar" in kinds:
            self._add(f"{tensor}_scalar", torch.zeros(()))

    def column(self, tensor: str) -> Tensor:
        """The tensor's own vector."""
        return self.get_parameter(f"{tensor}_vector")

    def element(self, tensor: str) -> Tensor:
        """The tensor's own scalar."""
        return self.get_parameter(f"{tensor}_scalar")

    def scale(self, tensor: str, kind: str) -> float:
        """As calibrated, or as above."""
        return self._scales[tensor, kind]

    def _write_outside(self, tensor: str, kind: str, values: Tensor) -> None:
        if kind != "lora":
            self.get_parameter(f"{tensor}_{kind}").copy_(values)


STORAGES: Mapping[str, type[LayerStorage]] = {"paper": PaperStorage, "normalised": NormalisedStorage}


def make_storage(form: str, in_features: int, out_features: int, allowed: Allowed, generator: torch.Generator) -> LayerStorage:
    """The storage of one layer under a form of entanglement.

    Raises:
        ConfigInvalid: the form is unknown.
    """
    return STORAGES[check_form(form)](in_features, out_features, allowed, generator)


def check_form(form: str) -> str:
    """The name of a form of entanglement. Raises ConfigInvalid for any other."""
    if form not in tuple(STORAGES):
        raise ConfigInvalid(f"entanglement {form!r} is unknown; accepted: {', '.join(STORAGES)}")
    return form


def xavier(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Uniform values (rows, columns) of variance 2 / (rows + columns) (Glorot and Bengio, AISTATS 2010)."""
    bound = math.sqrt(6.0 / (rows + columns))
    return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)


def _join(blocks: list[Tensor], dim: int) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim)


def _spread(blocks: list[Tensor], values: Tensor, dim: int) -> None:
    """Write values into blocks that together have their shape."""
    for block, part in zip(blocks, torch.split(values, [block.shape[dim] for block in blocks], dim), strict=True):
        block.copy_(part)
