"""What may be chosen: choices, layer configs, subnet configs, and the search space with its parameter counts.

This is the vocabulary of the search. It is plain Python (no torch), so that a control plane can check a budget
without loading a model. Sampling lives in `glora_core.sampling`; tensors live in `glora_core.layers`.
"""

import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from glora_core.errors import BudgetInfeasible, ConfigInvalid

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
    """The choices of one adapted layer, one for each of A–E."""

    A: Choice = NONE
    B: Choice = NONE
    C: Choice = NONE
    D: Choice = NONE
    E: Choice = NONE

    def __post_init__(self) -> None:
        for tensor in TENSORS:
            kind = self[tensor].kind
            if kind not in KINDS[tensor]:
                raise ConfigInvalid(f"{tensor} cannot be {kind!r}; accepted: {', '.join(KINDS[tensor])}")

    def __getitem__(self, tensor: str) -> Choice:
        choice: Choice = getattr(self, tensor)
        return choice

    @property
    def code(self) -> str:
        """Canonical text, A to E without separators, e.g. `L4VNSN`; `parse_layer` reads it back."""
        return "".join(self[tensor].code for tensor in TENSORS)

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


def parse_layer(code: str) -> LayerConfig:
    """The layer config of a canonical text such as `L4VNSN`.

    Raises:
        ConfigInvalid: the text is not five tokens, or a tensor cannot take its token.
    """
    tokens = _TOKEN.findall(code)
    if len(tokens) != len(TENSORS) or "".join(tokens) != code:
        raise ConfigInvalid(f"layer config {code!r} is not five of L<rank>, V, S, N (for A, B, C, D, E)")
    return LayerConfig(*(Choice(_KIND[token[0]], int(token[1:] or 0)) for token in tokens))


def encode(config: SubnetConfig) -> str:
    """Canonical text of a subnet config: its layers' codes joined by `-`. Stable over versions."""
    return "-".join(layer.code for layer in config)


def decode(text: str) -> SubnetConfig:
    """The subnet config of a canonical text made by `encode`."""
    return tuple(parse_layer(code) for code in text.split("-"))


def config_hash(config: SubnetConfig) -> str:
    """sha256 (hex) of the canonical text: the identity of a subnet config wherever one is stored."""
    return hashlib.sha256(encode(config).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Name and size of one adapted layer of a backbone."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True)
class SearchSpace:
    """The allowed choices on every adapted layer of a backbone.

    Args:
        layers: the adapted layers, in the backbone's order.
        ranks: the ranks that a `lora` choice may have; ranks of one tensor share their leading columns.
        kinds: allowed kinds per tensor; all of `KINDS` where a tensor is not named.

    Raises:
        ConfigInvalid: no layers, a rank below 1, an unknown tensor, or a kind that its tensor cannot take.
    """

    layers: tuple[LayerShape, ...]
    ranks: tuple[int, ...] = (4,)
    kinds: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        if not self.layers:
            raise ConfigInvalid("a search space needs at least one adapted layer")
        if not self.ranks or min(self.ranks) < 1 or len(set(self.ranks)) != len(self.ranks):
            raise ConfigInvalid(f"ranks {list(self.ranks)} must be distinct integers of at least 1")
        for tensor, kinds in self.kinds:
            if tensor not in KINDS:
                raise ConfigInvalid(f"tensor {tensor!r} is unknown; accepted: {', '.join(KINDS)}")
            if not kinds or not set(kinds) <= set(KINDS[tensor]):
                raise ConfigInvalid(f"choices {list(kinds)} of {tensor}: accepted are one or more of {', '.join(KINDS[tensor])}")

    @staticmethod
    def of(layers: Sequence[LayerShape], ranks: Sequence[int] = (4,), kinds: Mapping[str, Sequence[str]] | None = None) -> "SearchSpace":
        """A space from plain lists and dicts, as they stand in a request."""
        allowed = tuple((tensor, tuple(names)) for tensor, names in sorted((kinds or {}).items()))
        return SearchSpace(tuple(layers), tuple(sorted(ranks)), allowed)

    def choices(self, tensor: str) -> tuple[Choice, ...]:
        """The allowed choices of one support tensor, largest first."""
        kinds = dict(self.kinds).get(tensor, KINDS[tensor])
        found: list[Choice] = []
        for kind in KINDS[tensor]:
            if kind in kinds:
                found += [lora(rank) for rank in sorted(self.ranks, reverse=True)] if kind == "lora" else [Choice(kind)]
        return tuple(found)

    @cached_property
    def layer_configs(self) -> tuple[LayerConfig, ...]:
        """Every allowed layer config, the same for all layers; 432 for the full space at a single rank."""
        return tuple(LayerConfig(*combo) for combo in itertools.product(*(self.choices(tensor) for tensor in TENSORS)))

    @cached_property
    def costs(self) -> tuple[tuple[int, ...], ...]:
        """Trainable parameters, `costs[layer][i]` for `layer_configs[i]`."""
        by_shape: dict[tuple[int, int], tuple[int, ...]] = {}
        for layer in self.layers:
            shape = (layer.in_features, layer.out_features)
            if shape not in by_shape:
                by_shape[shape] = tuple(config.parameters(*shape) for config in self.layer_configs)
        return tuple(by_shape[layer.in_features, layer.out_features] for layer in self.layers)

    @property
    def max_rank(self) -> int:
        """The largest rank a `lora` choice may have."""
        return max(self.ranks)

    @property
    def minimum(self) -> int:
        """Trainable parameters of the smallest subnet."""
        return sum(min(costs) for costs in self.costs)

    @property
    def maximum(self) -> int:
        """Trainable parameters of the largest subnet."""
        return sum(max(costs) for costs in self.costs)

    @property
    def size(self) -> int:
        """How many subnet configs there are (exact)."""
        return math.prod(len(self.layer_configs) for _ in self.layers)

    def extreme(self, *, largest: bool) -> SubnetConfig:
        """The subnet with the most (or fewest) trainable parameters."""
        pick = max if largest else min
        return tuple(self.layer_configs[costs.index(pick(costs))] for costs in self.costs)

    def parameters(self, config: SubnetConfig) -> int:
        """Trainable parameters of a subnet config, head not counted."""
        return sum(layer.parameters(shape.in_features, shape.out_features) for layer, shape in zip(config, self.layers, strict=True))

    def contains(self, config: SubnetConfig) -> bool:
        """Whether every layer of the config is allowed here."""
        return len(config) == len(self.layers) and all(layer in self._allowed for layer in config)

    @cached_property
    def _allowed(self) -> frozenset[LayerConfig]:
        return frozenset(self.layer_configs)

    def check_budget(self, budget: int) -> None:
        """Return if some subnet fits.

        Raises:
            BudgetInfeasible: even the smallest subnet has more than `budget` trainable parameters.
        """
        if budget < self.minimum:
            raise BudgetInfeasible(budget, self.minimum, self.maximum)

    def named(self, config: SubnetConfig) -> Iterator[tuple[str, LayerConfig]]:
        """Pairs of layer name and layer config."""
        return zip((layer.name for layer in self.layers), config, strict=True)

    def covering(self, config: SubnetConfig) -> "SearchSpace":
        """The smallest full space over the same layers that holds a config: all kinds, and the ranks that it uses."""
        used = {layer[tensor].rank for layer in config for tensor in TENSORS} - {0}
        return SearchSpace(self.layers, tuple(sorted(used)) or (1,))
