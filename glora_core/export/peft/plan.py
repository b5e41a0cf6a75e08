"""How each part of a subnet travels in a peft adapter: as tensors of the adapter's own kind, or as a whole module.

Decides and refuses; writes nothing (`glora_core.export.peft.write`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from torch import Tensor, nn

from glora_core.configs import NONE, LayerConfig, SubnetConfig
from glora_core.errors import ConfigInvalid
from glora_core.export.peft.layout import exactly, glora_takes, head_names, hidden_by, lora_takes, plain_modules, saved_by
from glora_core.layers import GLoRALayer
from glora_core.space import LayerShape
from glora_core.supernet import Supernet

Way = Literal["lora", "glora", "whole", "none"]


@dataclass(frozen=True)
class Target:
    """An adapted layer: its place in the space, the part of its config that acts on it and not on a batch norm, and how it travels."""

    index: int
    shape: LayerShape
    layer: GLoRALayer
    config: LayerConfig
    way: Way


@dataclass(frozen=True)
class Plan:
    """How each part of a subnet travels.

    Args:
        supernet: the supernet.
        config: one of its subnets.
        extra: names of further modules to ship whole.
    """

    supernet: Supernet
    config: SubnetConfig
    extra: tuple[str, ...]

    @cached_property
    def _placed(self) -> list[Target]:
        """The adapted layers in the space's order, each with the way it travels by its kind and config."""
        found, whole = [], {*self.extra, *head_names(self.supernet.backbone)}
        for index, (shape, layer) in enumerate(self.supernet.layers()):
            own = _acting_on_layer(shape, self.config[index])
            found.append(Target(index, shape, layer, own, "whole" if shape.name in whole else _way(layer, own)))
        return [_in_glora(target) for target in found] if any(target.way == "glora" for target in found) else found

    @cached_property
    def absorbed(self) -> list[Target]:
        """The layers whose bias a batch norm takes up in this subnet."""
        return [target for target in self.targets if target.config != self.config[target.index]]

    @cached_property
    def saved(self) -> list[str]:
        """Names of the modules that travel whole, those among them which peft cannot tell from one that must."""
        layers = [target.shape.name for target in self._placed if target.way == "whole"]
        norms = [target.shape.absorber for target in self._placed if target.config != self.config[target.index]]
        needed = {*head_names(self.supernet.backbone), *layers, *norms, *self.extra}
        return sorted({*needed, *saved_by(needed, (name for name, _ in plain_modules(self.supernet.backbone)))})

    @cached_property
    def targets(self) -> list[Target]:
        """The adapted layers in the space's order. Raises ConfigInvalid where one would gain a bias that peft has no place for."""
        return [replace(target, way="whole") if target.shape.name in self.saved else target for target in self._placed]

    @property
    def peft_type(self) -> str:
        """`GLORA` if some linear layer needs it, else `LORA`."""
        return "GLORA" if any(target.way == "glora" for target in self.targets) else "LORA"

    @cached_property
    def adapted(self) -> list[Target]:
        """The layers that get tensors of the adapter's own kind."""
        return [target for target in self.targets if target.way in ("lora", "glora")]

    @cached_property
    def placeholder(self) -> str:
        """A module for a low-rank update of zero, where no layer has one: peft loads no adapter without a target."""
        if self.adapted:
            return ""
        idle = [target.shape.name for target in self.targets if target.way == "none" and lora_takes(target.layer)]
        return idle[0] if idle else _smallest_unused(self.supernet.backbone, self.saved)

    @property
    def names(self) -> list[str]:
        """Names of the modules that peft is to adapt."""
        return [target.shape.name for target in self.adapted] or [self.placeholder]

    @property
    def target_modules(self) -> str:
        """The same as peft takes them."""
        return exactly(self.names)

    @property
    def rank(self) -> int:
        """The one rank of all factors in peft's GLoRA, which the others are padded to."""
        return max([1, *(target.config[tensor].rank for target in self.adapted for tensor in "AB")])

    def check_names(self) -> None:
        """Raise ConfigInvalid for a module that cannot travel whole, or a layer that peft would not adapt for its name."""
        modules = dict(plain_modules(self.supernet.backbone))
        for name in self.saved:
            _check_whole(name, modules, self.saved)
        for name in self.names:
            if hidden_by(self.saved, name) or saved_by(self.saved, [f"{name}.base_layer"]):
                alike = [entry for entry in self.saved if hidden_by([entry], name) or "base_layer".endswith(entry)]
                raise ConfigInvalid(
                    f"layer {name!r} cannot be adapted by peft beside a module {alike[0]!r} that travels whole: names alike"
                )


def _acting_on_layer(shape: LayerShape, config: LayerConfig) -> LayerConfig:
    """The part of a layer's config that does not act on a batch norm in its stead."""
    own = config if shape.bias else replace(config, C=NONE, E=NONE)
    if own == config or shape.absorber:
        return own
    raise ConfigInvalid(
        f"layer {shape.name!r} has no bias and would gain one by C or E ({config.code}), for which peft has no place;"
        " accepted there: N for C and E"
    )


def _way(layer: GLoRALayer, config: LayerConfig) -> Way:
    """How a layer travels if the format has a place for it."""
    if config == LayerConfig():
        return "none"
    if config == LayerConfig(B=config.B) and config.B.kind == "lora" and lora_takes(layer):
        return "lora"
    return "glora" if glora_takes(layer) else "whole"


def _in_glora(target: Target) -> Target:
    """The same layer in peft's GLoRA format, which has no way to adapt convolutions and `Conv1D`."""
    return replace(target, way="glora" if glora_takes(target.layer) else "whole") if target.way == "lora" else target


def _smallest_unused(backbone: nn.Module, saved: Sequence[str]) -> str:
    """The smallest module which peft's LoRA takes, outside adapted layers and those that travel whole; embeddings as a last resort.

    A module that shares its weight, as a language model's output with its embedding, is none: peft would part the two.
    """
    uses = Counter(id(module.weight) for _, module in plain_modules(backbone) if isinstance(getattr(module, "weight", None), Tensor))
    taken = tuple(f"{name}." for name in saved)
    sizes = {
        name: (isinstance(module, nn.Embedding), sum(parameter.numel() for parameter in module.parameters()))
        for name, module in plain_modules(backbone)
        if (isinstance(module, nn.Embedding) or lora_takes(module)) and uses[id(module.weight)] == 1 and not f"{name}.".startswith(taken)
    }
    if not sizes:
        raise ConfigInvalid("every layer of this subnet would travel whole, and peft loads no adapter without a layer to adapt")
    return min(sizes, key=lambda name: sizes[name])


def _check_whole(name: str, modules: dict[str, nn.Module], saved: Sequence[str]) -> None:
    if name not in modules:
        raise ConfigInvalid(f"module {name!r} is not in the backbone; accepted are names such as {next(iter(modules))!r}")
    inner = (other for other, module in modules.items() if isinstance(module, GLoRALayer) or other in saved)
    if any(other.startswith(f"{name}.") for other in inner):
        raise ConfigInvalid(f"module {name!r} cannot travel whole: there are adapted layers in it, or modules that travel by themselves")
