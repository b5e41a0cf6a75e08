"""A peft adapter as a subnet: the LoRA and GLoRA folders that peft writes, over an unadapted backbone.

What peft can say and a subnet cannot is refused by the name of its option, before the backbone is touched. Does not import peft.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import torch
from torch import Tensor, nn

from glora_core.backbones import adapted_layers
from glora_core.configs import TENSORS, LayerConfig, SubnetConfig
from glora_core.errors import ConfigInvalid
from glora_core.export.peft.layout import glora_takes, head_names, lora_takes, saved_by, targeted
from glora_core.export.peft.numbers import Numbers, config_of, fill
from glora_core.export.peft.parse import Fields, Parts, layer_numbers, load_adapter
from glora_core.layers import GLoRALayer, adapt
from glora_core.layers.kinds import kind_of
from glora_core.space import LayerShape, SearchSpace
from glora_core.supernet import Supernet, layer_module

Modules = Mapping[str, nn.Module]


@dataclass(frozen=True, slots=True)
class Imported:
    """An adapter as a subnet.

    Attributes:
        space: the space that holds this subnet and no other.
        config: the subnet.
        supernet: the backbone with the adapter's numbers and head, set to the subnet.
        whole: names of modules outside the head that the adapter replaced; they are part of the supernet's frozen backbone now,
            and `write_peft` ships them if they are given to it as `whole`.
    """

    space: SearchSpace
    config: SubnetConfig
    supernet: Supernet
    whole: tuple[str, ...]


def read_peft(folder: str | Path, backbone: nn.Module, layers: Sequence[LayerShape] | None = None) -> Imported:
    """Read an adapter that peft, or `write_peft`, has written.

    Each support tensor becomes the smallest choice that holds its numbers exactly: `none` for zeros, `scalar` for a vector of
    equal numbers, `vector` for a factor times ones, and no rank for a factor's columns of zeros. LoRA's scale is multiplied into
    its left factor. An adapter of the head is merged into the head, which is trained whole here. The numbers are stored as they
    act, in the `paper` form, and rounded once to float32 (to float64 for a backbone in float64).

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors`.
        backbone: the model, a module, that the adapter belongs to, with its pretrained weights; taken over and changed in place, but only
            after everything has been checked.
        layers: the adapted layers of the space; if not given, those that the adapter has, or all if it has none.

    Raises:
        ConfigInvalid: the folder is no such adapter, does not fit the backbone or the layers, or uses an option of peft that no
            subnet can express; the message names it.
    """
    modules = dict(backbone.named_modules())
    if any(isinstance(module, GLoRALayer) for module in modules.values()):
        raise ConfigInvalid("the backbone has adapted layers already; accepted is the bare model that the adapter was made for")
    fields, adapted, others = load_adapter(Path(folder))
    numbers = {name: _numbers(fields, name, modules, parts) for name, parts in adapted.items()}
    _check_complete(fields, numbers, modules)
    saved = _saved(fields, modules, others)
    heads = head_names(backbone)
    own = _own(backbone, modules, {name: found for name, found in numbers.items() if not _within(name, heads)})
    space, config = _subnet(backbone, modules, own, layers)
    saved |= {name: _merged(modules[name], found) for name, found in numbers.items() if _within(name, heads)}
    for name, state in saved.items():
        modules[name].load_state_dict(state)
    head = {name: deepcopy(modules[name].state_dict()) for name in heads}
    supernet = _supernet(backbone, space, config, own, head)
    return Imported(space, config, supernet, tuple(name for name, state in saved.items() if state and not _within(name, heads)))


def _own(backbone: nn.Module, modules: Modules, numbers: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """The adapter's layers, without those of an update of zero that cannot adapt: peft loads no adapter without some module to adapt."""
    adaptable = {shape.name for shape in adapted_layers(backbone, ["*"])}
    return {
        name: found
        for name, found in numbers.items()
        if kind_of(modules[name]) and (name in adaptable or config_of(found) != LayerConfig())
    }


def _numbers(fields: Fields, name: str, modules: Modules, parts: Parts) -> Numbers:
    """What the adapter holds for a module. Raises ConfigInvalid if there is no such module or peft's method is not exact for it."""
    module, kind = modules.get(name), fields["peft_type"]
    if module is None:
        raise ConfigInvalid(f"the adapter has tensors for {name!r}, which this backbone does not have")
    if not targeted(fields, name):
        raise ConfigInvalid(f"the adapter has tensors for {name!r}, which its target_modules do not name, so that peft ignores them")
    if kind == "LORA" and isinstance(module, nn.Embedding):
        if any(bool(value.any()) for part, value in parts.items() if part == "lora_embedding_B"):
            raise ConfigInvalid(f"{name!r} is an embedding, which has no support tensors; accepted are linear layers and convolutions")
        return {}
    if not (lora_takes(module) if kind == "LORA" else glora_takes(module)):
        raise ConfigInvalid(f"{name!r} is a {module}, for which a {kind} adapter of peft is not exact, or which it cannot adapt")
    return layer_numbers(fields, name, module, parts)


def _check_complete(fields: Fields, found: Mapping[str, Numbers], modules: Modules) -> None:
    """Raise ConfigInvalid if the adapter lacks a module that its targets name, or has none."""
    lacking = [name for name in modules if name and targeted(fields, name) and name not in found]
    if lacking or not found:
        raise ConfigInvalid(f"the adapter has no tensors for {len(lacking)} of its target_modules in this backbone: {lacking[:3]}")


def _saved(fields: Fields, modules: Modules, others: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """States of the modules that the adapter replaces whole. Raises ConfigInvalid for tensors missing, superfluous or of other shapes."""
    states: dict[str, dict[str, Tensor]] = {}
    for name in saved_by(fields.get("modules_to_save") or [], modules):
        own = modules[name].state_dict()
        states[name] = {key: others[f"{name}.{key}"] for key in own if f"{name}.{key}" in others}
        for key, value in own.items():
            stored = states[name].get(key)
            if stored is None or stored.shape != value.shape:
                shape = None if stored is None else tuple(stored.shape)
                raise ConfigInvalid(f"{name}.{key} of the adapter is of shape {shape}; this backbone takes {tuple(value.shape)}")
            if not bool(stored.isfinite().all()):
                raise ConfigInvalid(f"{name}.{key} of the adapter holds numbers that are not finite")
    left = others.keys() - {f"{name}.{key}" for name, state in states.items() for key in state}
    if left:
        raise ConfigInvalid(f"{len(left)} tensors of the adapter belong to no layer or module that it names, such as {min(left)!r}")
    return states


def _within(name: str, outer: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in outer)


def _subnet(
    backbone: nn.Module, modules: Modules, numbers: Mapping[str, Numbers], layers: Sequence[LayerShape] | None
) -> tuple[SearchSpace, SubnetConfig]:
    """The space that holds only the adapter, and its config. Raises ConfigInvalid if it has other layers than those given."""
    shapes = tuple(adapted_layers(backbone, [escape(name) for name in numbers]) if layers is None else layers)
    for shape in shapes:
        layer_module(modules, shape)
    configs = {name: config_of(found) for name, found in numbers.items()}
    strange = configs.keys() - {shape.name for shape in shapes}
    if strange:
        raise ConfigInvalid(f"the adapter has layer {min(strange)!r}, which is not among the {len(shapes)} that are to be adapted")
    config = tuple(configs.get(shape.name, LayerConfig()) for shape in shapes)
    return SearchSpace(shapes).covering(config), config


def _merged(module: nn.Module, numbers: Numbers) -> dict[str, Tensor]:
    """The state of a module with an adapter merged into it."""
    config = config_of(numbers)
    layer = adapt(deepcopy(module), {tensor: (config[tensor],) for tensor in TENSORS}, "paper", torch.Generator())
    fill(layer.support, numbers)
    weight, bias = layer.merged(config)
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _supernet(
    backbone: nn.Module,
    space: SearchSpace,
    config: SubnetConfig,
    numbers: Mapping[str, Numbers],
    head: Mapping[str, Mapping[str, Tensor]],
) -> Supernet:
    supernet = Supernet(backbone, space, "paper")
    for shape, layer in supernet.layers():
        fill(layer.support, numbers.get(shape.name, {}))
    for name, state in head.items():
        backbone.get_submodule(name).load_state_dict(state)
    supernet.set_config(config)
    return supernet.train(backbone.training)
