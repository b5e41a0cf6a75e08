"""Where the numbers of A–E live, and what they share: the two forms of weight entanglement (DESIGN §3).

A storage answers one question: which tensors act for a given choice. `LayerStorage` has the shapes common to both;
`PaperStorage` and `NormalisedStorage` say which numbers a choice reads and at what scale.
Knows nothing of the formula; imports only torch and the space's vocabulary.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from glora_core.configs import Choice
from glora_core.errors import ConfigInvalid


class LayerStorage(nn.Module):
    """The trainable numbers of one adapted layer.

    Every `…_down` starts at zero, every `…_up` by Xavier, vectors and scalars at zero, so that each subnet equals the
    backbone before training.

    Args:
        in_features, out_features: size of the layer.
        rank: largest rank that a `lora` choice may have.
        generator: source of the initial values.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.A_down = nn.Parameter(torch.zeros(out_features, rank))
        self.A_up = nn.Parameter(_xavier(rank, in_features, generator))
        self.B_down = nn.Parameter(torch.zeros(out_features, rank))
        self.B_up = nn.Parameter(_xavier(rank, in_features, generator))
        self.C_down = nn.Parameter(torch.zeros(in_features, rank))
        self.C_up = nn.Parameter(_xavier(rank, 1, generator))
        self.D_vector = nn.Parameter(torch.zeros(out_features))
        self.E_vector = nn.Parameter(torch.zeros(out_features))

    def factors(self, tensor: str, rank: int, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """The two factors of a `lora` choice: (rows, rank), (rank, columns). Ranks share the leading columns.

        `dtype` is the precision to compute in; the stored one unless given.
        """
        down, up = (getattr(self, f"{tensor}_{part}") for part in ("down", "up"))
        dtype = dtype or down.dtype
        return down[:, :rank].to(dtype), up[:rank].to(dtype) * self.scale(tensor, "lora")

    @abstractmethod
    def column(self, tensor: str) -> Tensor:
        """The `vector` choice before scaling: (out,) or, for C, (in,)."""

    @abstractmethod
    def element(self, tensor: str) -> Tensor:
        """The `scalar` choice before scaling: ()."""

    @abstractmethod
    def scale(self, tensor: str, kind: str) -> float:
        """Fixed factor between the stored number and the number that acts."""

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


class PaperStorage(LayerStorage):
    """All choices of one tensor share storage, as in the authors' code.

    The vector is the first column of `…_down`, the scalar its first element.
    """

    def column(self, tensor: str) -> Tensor:
        """First column of the tensor's storage."""
        stored: Tensor = getattr(self, f"{tensor}_vector") if tensor in "DE" else getattr(self, f"{tensor}_down")[:, 0]
        return stored

    def element(self, tensor: str) -> Tensor:
        """First element of the tensor's storage."""
        return self.column(tensor)[0]

    def scale(self, tensor: str, kind: str) -> float:
        """Always 1: the numbers act as they are stored."""
        return 1.0


class NormalisedStorage(LayerStorage):
    """Each kind of choice has numbers of its own, scaled so that one optimiser step moves the layer's output alike whichever is active.

    An adaptive optimiser moves every stored number by about the learning rate. A vector in B adds its entry times the
    sum of all inputs, hence 1/in; C adds W0 c, whose entries all move together, hence 1/(4·√in); the rest act at 1.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, generator: torch.Generator) -> None:
        super().__init__(in_features, out_features, rank, generator)
        for tensor, length in {"A": out_features, "B": out_features, "C": in_features}.items():
            self.register_parameter(f"{tensor}_vector", nn.Parameter(torch.zeros(length)))
        for tensor in "ABDE":
            self.register_parameter(f"{tensor}_scalar", nn.Parameter(torch.zeros(())))

    def column(self, tensor: str) -> Tensor:
        """The tensor's own vector."""
        stored: Tensor = getattr(self, f"{tensor}_vector")
        return stored

    def element(self, tensor: str) -> Tensor:
        """The tensor's own scalar."""
        stored: Tensor = getattr(self, f"{tensor}_scalar")
        return stored

    def scale(self, tensor: str, kind: str) -> float:
        """1/in for a vector or scalar of B, 1/(4·√in) for C, else 1."""
        if tensor == "B" and kind in ("vector", "scalar"):
            return 1.0 / self.in_features
        if tensor == "C":
            return 0.25 / math.sqrt(self.in_features)
        return 1.0


STORAGES: Mapping[str, type[LayerStorage]] = {"paper": PaperStorage, "normalised": NormalisedStorage}


def make_storage(form: str, in_features: int, out_features: int, rank: int, generator: torch.Generator) -> LayerStorage:
    """The storage of one layer under a form of entanglement.

    Raises:
        ConfigInvalid: the form is unknown.
    """
    if form not in STORAGES:
        raise ConfigInvalid(f"entanglement {form!r} is unknown; accepted: {', '.join(STORAGES)}")
    return STORAGES[form](in_features, out_features, rank, generator)


def _xavier(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    bound = math.sqrt(6.0 / (rows + columns))
    return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)
