"""Subnet configs for human eyes: a short text, a table of layers, and what differs between two configs.

The canonical text that machines store is in `glora_core.configs`. Plain Python, no torch.
"""

from collections import Counter
from dataclasses import dataclass

from glora_core.configs import TENSORS, Choice, LayerConfig, SubnetConfig
from glora_core.errors import ConfigInvalid
from glora_core.space import SearchSpace

_BAR = 8


@dataclass(frozen=True, slots=True)
class Change:
    """One support tensor of one layer that two configs choose differently."""

    layer: str
    tensor: str
    before: Choice
    after: Choice

    def __str__(self) -> str:
        return f"{self.layer}: {self.tensor} {choice_text(self.before)} → {choice_text(self.after)}"


def choice_text(choice: Choice) -> str:
    """A choice in words: `lora 4`, `vector`, `scalar`, `none`."""
    return f"{choice.kind} {choice.rank}" if choice.rank else choice.kind


def layer_text(config: LayerConfig) -> str:
    """A layer config in words, without the tensors that are `none`: `A lora 4, E vector`; `unchanged` if all are."""
    return ", ".join(f"{t} {choice_text(config[t])}" for t in TENSORS if config[t].kind != "none") or "unchanged"


def summary(space: SearchSpace, config: SubnetConfig) -> str:
    """One line: parameters, and how often each choice of each tensor occurs, most frequent first."""
    counts = {tensor: Counter(choice_text(layer[tensor]) for layer in config) for tensor in TENSORS}
    parts = (f"{tensor}: " + ", ".join(f"{text} ×{n}" for text, n in counts[tensor].most_common()) for tensor in TENSORS)
    return f"{space.parameters(config):,} parameters in {len(config)} layers — " + "; ".join(parts)


def table(space: SearchSpace, config: SubnetConfig) -> str:
    """The config as a Markdown table: a row per layer, a column per tensor, the layer's trainable parameters, and a bar for them.

    The longest bar is that of the layer with the most parameters.
    """
    counts = [layer.parameters(shape.in_features, shape.out_features) for shape, layer in zip(space.layers, config, strict=True)]
    lines = ["| layer | A | B | C | D | E | parameters | |", "| --- | --- | --- | --- | --- | --- | ---: | --- |"]
    for shape, layer, count in zip(space.layers, config, counts, strict=True):
        cells = ("·" if layer[tensor].kind == "none" else choice_text(layer[tensor]) for tensor in TENSORS)
        bar = "█" * -(-count * _BAR // max(1, *counts))
        lines.append(f"| `{shape.name}` | {' | '.join(cells)} | {count:,} | {bar} |")
    return "\n".join(lines)


def diff(space: SearchSpace, before: SubnetConfig, after: SubnetConfig) -> list[Change]:
    """What changes from one config to another, in the order of layers and tensors.

    Raises:
        ConfigInvalid: a config has another number of layers than the space.
    """
    if {len(before), len(after)} != {len(space.layers)}:
        raise ConfigInvalid(f"configs of {len(before)} and {len(after)} layers cannot be compared over {len(space.layers)} layers")
    return [
        Change(shape.name, tensor, old[tensor], new[tensor])
        for shape, old, new in zip(space.layers, before, after, strict=True)
        for tensor in TENSORS
        if old[tensor] != new[tensor]
    ]
