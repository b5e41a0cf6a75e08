"""The search space: which choices each adapted layer of a backbone may have, how many subnets that makes, and their sizes.

Plain Python (no torch), so that a control plane can check a budget without loading a model. Named spaces are in
`glora_core.presets`; drawing from a space is in `glora_core.sampling`.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from glob import escape
from numbers import Integral
from typing import Any

from glora_core.configs import KINDS, NONE, TENSORS, Choice, LayerConfig, SubnetConfig, lora, parse_choice, parse_layer
from glora_core.errors import BudgetInfeasible, ConfigInvalid

Kinds = tuple[tuple[str, tuple[str, ...]], ...]
_Rules = tuple[tuple[Choice, ...], ...]
MOST_CONFIGS = 200_000
"""Configs of single layers that a space may have, those of layers with equal choices counted once; the whole space at one rank has 432."""


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Name and size of one adapted layer of a backbone.

    Attributes:
        name: of the module in the backbone.
        in_features: columns of the weight as a matrix; of a convolution its input channels per group times the kernel's area.
        out_features: rows of the weight as a matrix.
        bias: whether the layer has a bias, so that D, which multiplies it, has something to do.
        absorber: name of the batch norm that follows a layer without bias and takes up in its running mean what C and E add.
    """

    name: str
    in_features: int
    out_features: int
    bias: bool = True
    absorber: str = ""


@dataclass(frozen=True, slots=True)
class Override:
    """What differs in the layers whose name matches a glob pattern; of several that match a layer, the last one that names a thing counts.

    Args:
        layers: glob pattern over layer names, such as `blocks.0.*`.
        ranks: the ranks there, where given.
        kinds: what is allowed there, of the tensors named.
    """

    layers: str
    ranks: tuple[int, ...] | None = None
    kinds: Kinds = ()

    @staticmethod
    def of(layers: str, ranks: Sequence[int] | None = None, kinds: Mapping[str, Sequence[str]] | None = None) -> "Override":
        """An override from plain lists and dicts, as they stand in a request."""
        return Override(layers, None if ranks is None else _ascending(ranks), _plain_kinds(kinds))

    @staticmethod
    def freeze(layers: str, config: LayerConfig) -> "Override":
        """Allow one layer config only."""
        return Override.of(layers, None, {tensor: [config[tensor].code] for tensor in TENSORS})


@dataclass(frozen=True)
class SearchSpace:
    """The allowed choices on every adapted layer of a backbone.

    Args:
        layers: the adapted layers, in the backbone's order.
        ranks: the ranks that a `lora` choice may have; ranks of one tensor share their leading columns.
        kinds: what is allowed per tensor, by kind (`lora` stands for all ranks) or by the code of one choice, such as `L8`;
            all of `KINDS` where a tensor is not named.
        overrides: what differs in some layers.
        new_biases: whether C and E may act on layers that have neither a bias nor a batch norm to take it up. They gain one then,
            which a plain checkpoint of the same architecture has no place for.

    A tensor that a layer cannot carry (D where there is no bias to multiply) is `none` there, whatever is allowed.

    Raises:
        ConfigInvalid: no layers, a rank below 1, an unknown tensor, a kind that its tensor cannot take, a pattern that
            matches no layer, or more than `MOST_CONFIGS`.
    """

    layers: tuple[LayerShape, ...]
    ranks: tuple[int, ...] = (4,)
    kinds: Kinds = ()
    overrides: tuple[Override, ...] = ()
    new_biases: bool = False

    def __post_init__(self) -> None:
        if not self.layers:
            raise ConfigInvalid("a search space needs at least one adapted layer")
        _check(self.ranks, self.kinds, "")
        for override in self.overrides:
            _check(override.ranks, override.kinds, f"override {override.layers!r}: ")
            if not any(fnmatchcase(layer.name, override.layers) for layer in self.layers):
                raise ConfigInvalid(f"override {override.layers!r} matches no layer; layers are named like {self.layers[0].name!r}")
        configs = sum(math.prod(map(len, rules)) for rules in set(self._rules))
        if configs > MOST_CONFIGS:
            raise ConfigInvalid(f"layers have {configs:,} configs; accepted are at most {MOST_CONFIGS:,}: name fewer ranks or choices")

    @staticmethod
    def of(
        layers: Sequence[LayerShape],
        ranks: Sequence[int] = (4,),
        kinds: Mapping[str, Sequence[str]] | None = None,
        overrides: Sequence[Override] = (),
        new_biases: bool = False,
    ) -> "SearchSpace":
        """A space from plain lists and dicts, as they stand in a request."""
        return SearchSpace(tuple(layers), _ascending(ranks), _plain_kinds(kinds), tuple(overrides), new_biases)

    @cached_property
    def choices(self) -> tuple[Mapping[str, tuple[Choice, ...]], ...]:
        """The allowed choices per layer and support tensor, largest first."""
        return tuple(dict(zip(TENSORS, rules, strict=True)) for rules in self._rules)

    @cached_property
    def _rules(self) -> tuple[_Rules, ...]:
        """The same as tuples, so that layers with equal rules are found equal."""
        return tuple(tuple(self._choices(layer, tensor) for tensor in TENSORS) for layer in self.layers)

    def _choices(self, layer: LayerShape, tensor: str) -> tuple[Choice, ...]:
        ranks, kinds = self.ranks, dict(self.kinds).get(tensor, KINDS[tensor])
        for override in self.overrides:
            if fnmatchcase(layer.name, override.layers):
                ranks = override.ranks or ranks
                kinds = dict(override.kinds).get(tensor, kinds)
        if not self.carries(layer, tensor):
            return (NONE,)
        found = {choice for name in kinds for choice in _choices_named(name, ranks)}
        return tuple(sorted(found, key=lambda choice: (KINDS[tensor].index(choice.kind), -choice.rank)))

    def carries(self, layer: LayerShape, tensor: str) -> bool:
        """Whether a support tensor can be anything but `none` in a layer."""
        if tensor in "AB" or layer.bias:
            return True
        return tensor in "CE" and (bool(layer.absorber) or self.new_biases)

    @cached_property
    def layer_configs(self) -> tuple[tuple[LayerConfig, ...], ...]:
        """Every allowed config of each layer; 432 for a layer with bias in the full space at a single rank."""
        made = {rules: tuple(LayerConfig(*combo) for combo in itertools.product(*rules)) for rules in set(self._rules)}
        return tuple(made[rules] for rules in self._rules)

    @cached_property
    def costs(self) -> tuple[tuple[int, ...], ...]:
        """Trainable parameters, `costs[layer][i]` for `layer_configs[layer][i]`; one and the same tuple for layers that are alike."""
        made: dict[tuple[_Rules, int, int], tuple[int, ...]] = {}
        for rules, configs, layer in zip(self._rules, self.layer_configs, self.layers, strict=True):
            key = (rules, layer.in_features, layer.out_features)
            if key not in made:
                made[key] = tuple(config.parameters(layer.in_features, layer.out_features) for config in configs)
        return tuple(made[rules, layer.in_features, layer.out_features] for rules, layer in zip(self._rules, self.layers, strict=True))

    @property
    def ranks_used(self) -> tuple[int, ...]:
        """Every rank that a `lora` choice may have in some layer, smallest first; empty if there is none."""
        found = {choice.rank for choices in set(self._rules) for allowed in choices for choice in allowed}
        return tuple(sorted(found - {0}))

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
        return math.prod(len(configs) for configs in self.layer_configs)

    def extreme(self, *, largest: bool) -> SubnetConfig:
        """The subnet with the most (or fewest) trainable parameters."""
        pick = max if largest else min
        return tuple(configs[costs.index(pick(costs))] for configs, costs in zip(self.layer_configs, self.costs, strict=True))

    def parameters(self, config: SubnetConfig) -> int:
        """Trainable parameters of a subnet config, head not counted."""
        return sum(
            layer_parameters(layer.code, shape.in_features, shape.out_features) for layer, shape in zip(config, self.layers, strict=True)
        )

    def contains(self, config: SubnetConfig) -> bool:
        """Whether every layer of the config is allowed here."""
        return len(config) == len(self.layers) and all(
            layer[tensor] in choices[tensor] for layer, choices in zip(config, self.choices, strict=True) for tensor in TENSORS
        )

    def covering(self, config: SubnetConfig) -> "SearchSpace":
        """The space over the same layers that holds one config and nothing else."""
        frozen = tuple(Override.freeze(escape(name), layer) for name, layer in self.named(config))
        return SearchSpace(self.layers, overrides=frozen, new_biases=self.new_biases)

    def check_budget(self, budget: int) -> None:
        """Return if some subnet fits.

        Raises:
            BudgetInfeasible: even the smallest subnet has more than `budget` trainable parameters.
            ConfigInvalid: the budget is no integer.
        """
        if isinstance(budget, bool) or not isinstance(budget, Integral):
            raise ConfigInvalid(f"budget {budget!r} is no number of parameters; accepted are integers of at least {self.minimum:,}")
        if budget < self.minimum:
            raise BudgetInfeasible(budget, self.minimum, self.maximum)

    def named(self, config: SubnetConfig) -> Iterator[tuple[str, LayerConfig]]:
        """Pairs of layer name and layer config."""
        return zip((layer.name for layer in self.layers), config, strict=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads them back."""
        return asdict(self)

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> "SearchSpace":
        """The space stored by `to_dict`."""
        layers = [LayerShape(**layer) for layer in stored["layers"]]
        overrides = [Override.of(o["layers"], o["ranks"], dict(o["kinds"])) for o in stored["overrides"]]
        return SearchSpace.of(layers, stored["ranks"], dict(stored["kinds"]), overrides, stored["new_biases"])


@lru_cache(maxsize=65_536)
def layer_parameters(code: str, in_features: int, out_features: int) -> int:
    """Trainable parameters of a layer config by its text, counted once: a search meets a few thousand of them over and over."""
    return parse_layer(code).parameters(in_features, out_features)


def _plain_kinds(kinds: Mapping[str, Sequence[str]] | None) -> Kinds:
    return tuple((tensor, tuple(names)) for tensor, names in sorted((kinds or {}).items()))


def _ascending(ranks: Sequence[int]) -> tuple[int, ...]:
    """Ranks in order; those that are none stay as they are, for `_check` to refuse."""
    return tuple(sorted(ranks)) if all(type(rank) is int for rank in ranks) else tuple(ranks)


def _check(ranks: Sequence[int] | None, kinds: Kinds, where: str) -> None:
    whole = ranks is None or all(type(rank) is int for rank in ranks)
    if ranks is not None and not (whole and ranks and min(ranks) >= 1 and max(ranks) < 10**9 and len(set(ranks)) == len(ranks)):
        raise ConfigInvalid(f"{where}ranks {list(ranks)} must be distinct integers of at least 1, and below a billion")
    for tensor, names in kinds:
        if tensor not in KINDS:
            raise ConfigInvalid(f"{where}tensor {tensor!r} is unknown; accepted: {', '.join(KINDS)}")
        if not names or not all(choice.kind in KINDS[tensor] for name in names for choice in _choices_named(name, (1,))):
            raise ConfigInvalid(f"{where}choices {list(names)} of {tensor}: accepted are one or more of {', '.join(KINDS[tensor])}")


def _choices_named(name: str, ranks: Sequence[int]) -> list[Choice]:
    """The choices that a name allows: a kind, `lora` at each of the ranks, or one choice by its code."""
    if name == "lora":
        return [lora(rank) for rank in ranks]
    return [Choice(name)] if name in ("vector", "scalar", "none") else [parse_choice(name)]
