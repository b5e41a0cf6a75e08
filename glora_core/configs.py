"""What may be chosen: choices, layer configs and subnet configs, with their canonical text and hash.

The vocabulary of the search, in plain Python (no torch). Which of them a backbone's layers may have is a search space
(`glora_core.space`); a form for human eyes is in `glora_core.reading`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from glora_core.errors import ConfigInvalid

TENSORS = ("A", "B", "C", "D", "E")
KINDS: Mapping[str, tuple[str, ...]] = {
    "A": ("lora", "vector", "scalar", "none"),
    "B": ("lora", "vector", "scalar", "none"),
    "C": ("lora", "vector", "none"),
    "D": ("vector", "scalar", "none"),
    "E": ("vector", "scalar", "none"),
}
"""The kinds of choice each support tensor has: 4·4·3·3·3 = 432 layer configs at a single rank (DESIGN §3)."""

_LETTER = {"lora": "L", "vector": "V", "scalar": "S", "none": "N"}
_KIND = {letter: kind for kind, letter in _LETTER.items()}
_TOKEN = re.compile(r"L[1-9][0-9]{0,8}|V|S|N")


@dataclass(frozen=True, slots=True, order=True)
class Choice:
    """What one support tensor is in one layer: a kind, and a rank where the kind is `lora`."""

    kind: str
    rank: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _LETTER:
            raise ConfigInvalid(f"choice {self.kind!r} is unknown; accepted: {', '.join(_LETTER)}")
        if type(self.rank) is not int:  # 4.0, True and numpy's integers are equal to an int, but not in their text, which is the identity
            raise ConfigInvalid(f"rank {self.rank!r} is of type {type(self.rank).__name__}; accepted are ints of at least 1")
        if (self.kind == "lora") != (self.rank > 0) or not 0 <= self.rank < 10**9:
            raise ConfigInvalid(f"choice {self.kind!r} with rank {self.rank}: lora needs a rank of at least 1, the others none")

    @property
    def code(self) -> str:
        """Canonical token: `L4`, `V`, `S` or `N`."""
        return _LETTER[self.kind] + (str(self.rank) if self.rank else "")


NONE, SCALAR, VECTOR = Choice("none"), Choice("scalar"), Choice("vector")


def lora(rank: int) -> Choice:
    """The low-rank choice of the given rank."""
    return Choice("lora", rank)


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """The choices of one adapted layer, one for each of A–E.

    Attributes:
        code: canonical text, A to E without separators, e.g. `L4VNSN`; `parse_layer` reads it back. Made once, since a search
            hashes every layer of thousands of subnets again and again.
    """

    A: Choice = NONE
    B: Choice = NONE
    C: Choice = NONE
    D: Choice = NONE
    E: Choice = NONE
    code: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for tensor in TENSORS:
            kind = self[tensor].kind
            if kind not in KINDS[tensor]:
                raise ConfigInvalid(f"{tensor} cannot be {kind!r}; accepted: {', '.join(KINDS[tensor])}")
        object.__setattr__(self, "code", "".join(self[tensor].code for tensor in TENSORS))

    def __hash__(self) -> int:
        return hash(self.code)

    def __getitem__(self, tensor: str) -> Choice:
        choice: Choice = getattr(self, tensor)
        return choice

    def parameters(self, in_features: int, out_features: int) -> int:
        """Trainable parameters of this config on a layer of the given size (the table of DESIGN §3)."""
        fan = {"A": out_features + in_features, "B": out_features + in_features, "C": in_features + 1}
        length = {"A": out_features, "B": out_features, "C": in_features, "D": out_features, "E": out_features}
        total = 0
        for tensor in TENSORS:
            choice = self[tensor]
            if choice.kind == "lora":
                total += choice.rank * fan[tensor]
            elif choice.kind == "vector":
                total += length[tensor]
            elif choice.kind == "scalar":
                total += 1
        return total


SubnetConfig = tuple[LayerConfig, ...]
"""A layer config for every adapted layer, in the space's layer order."""


def parse_choice(code: str) -> Choice:
    """The choice of a canonical token such as `L4`. Raises ConfigInvalid for any other text."""
    if not _TOKEN.fullmatch(code):
        raise ConfigInvalid(f"choice {code!r} is unknown; accepted: {', '.join(_LETTER)}, or a code: L<rank>, V, S, N")
    return Choice(_KIND[code[0]], int(code[1:] or 0))


@lru_cache(maxsize=8192)
def parse_layer(code: str) -> LayerConfig:
    """The layer config of a canonical text such as `L4VNSN`.

    Raises:
        ConfigInvalid: the text is not five tokens, or a tensor cannot take its token.
    """
    tokens = _TOKEN.findall(code)
    if len(tokens) != len(TENSORS) or "".join(tokens) != code:
        raise ConfigInvalid(f"layer config {code!r} is not five of L<rank>, V, S, N (for A, B, C, D, E)")
    return LayerConfig(*(parse_choice(token) for token in tokens))


def encode(config: SubnetConfig) -> str:
    """Canonical text of a subnet config: its layers' codes joined by `-`. Stable over versions."""
    return "-".join(layer.code for layer in config)


def decode(text: str) -> SubnetConfig:
    """The subnet config of a canonical text made by `encode`."""
    return tuple(parse_layer(code) for code in text.split("-"))


def config_hash(config: SubnetConfig) -> str:
    """sha256 (hex) of the canonical text: the identity of a subnet config wherever one is stored."""
    return hashlib.sha256(encode(config).encode()).hexdigest()
