"""The layout of a peft adapter folder: file and key names, which modules a name means, and which modules peft can adapt.

The rules are those of peft 0.21.2 (`peft/tuners/tuners_utils.py`, `peft/utils/other.py`), restated so that reading and writing
need no peft. Knows neither supernets nor subnets.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from glora_core.backbones import classifier
from glora_core.errors import ConfigInvalid
from glora_core.layers import GLoRAConv1D, GLoRALayer, GLoRALinear
from glora_core.layers.kinds import kind_of

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What every key in the weights file begins with; the module's name in the bare model follows."""

PEFT_VERSION = "0.21.2"
"""The peft release whose formats these are; GLoRA came with 0.20.0."""


def glora_takes(module: nn.Module) -> bool:
    """Whether peft's GLoRA can adapt a module, or what an adapted layer was: `nn.Linear` itself, no subclass."""
    return type(module.geometry if isinstance(module, GLoRALayer) else module) is nn.Linear


def lora_takes(module: nn.Module) -> bool:
    """Whether peft's LoRA computes the same for a module, or what an adapted layer was, merged and unmerged.

    For convolutions that are dilated, grouped or padded by other than zeros it does not: its inner convolution knows only the
    kernel's size, the stride and the amount of padding.
    """
    kind, plain = (type(module), module.geometry) if isinstance(module, GLoRALayer) else (kind_of(module), module)
    if isinstance(plain, nn.Conv2d):
        return type(plain) is nn.Conv2d and plain.groups == 1 and set(plain.dilation) == {1} and plain.padding_mode == "zeros"
    return kind in (GLoRALinear, GLoRAConv1D)


def plain_modules(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a backbone by their names, those inside adapted layers left out."""
    inside: list[str] = []
    for name, module in backbone.named_modules():
        if name and not any(name.startswith(prefix) for prefix in inside):
            if isinstance(module, GLoRALayer):
                inside.append(f"{name}.")
            yield name, module


def head_names(backbone: nn.Module) -> list[str]:
    """Names of the modules that make up the trainable head, those without parameters left out."""
    head = classifier(backbone)
    if head is None:
        return []
    names = {module: name for name, module in backbone.named_modules()}
    parts = [head] if head in names else list(head.children())
    return [names[part] for part in parts if next(part.parameters(), None) is not None]


def exactly(names: Iterable[str]) -> str:
    """A regular expression for `target_modules` that matches these names and no others; a list would match by their ends."""
    return "(?:" + "|".join(re.escape(name) for name in names) + ")"


def saved_by(ends: Iterable[str], names: Iterable[str]) -> list[str]:
    """The names of modules that `modules_to_save` means: peft compares their last characters, also in the midst of a word."""
    endings = tuple(ends)
    return [name for name in names if name.endswith(endings)] if endings else []


def hidden_by(saved: Iterable[str], name: str) -> bool:
    """Whether an entry of `modules_to_save` keeps peft from adapting a module that its targets name."""
    return any(re.match(rf"(^|.*\.){entry}($|\..*)", name) for entry in saved)


def targeted(fields: Mapping[str, Any], name: str) -> bool:
    """Whether a config's `target_modules`, and what restricts them, mean a module.

    Raises:
        ConfigInvalid: there are no target modules, or a pattern is no regular expression.
    """
    wanted = fields.get("target_modules")
    if not isinstance(wanted, str | list):
        raise ConfigInvalid(f"target_modules is {wanted!r}; accepted: a list of names or a regular expression, as peft saves them")
    try:
        if _named(fields.get("exclude_modules") or [], name) or hidden_by(fields.get("modules_to_save") or [], name):
            return False
        by_end = isinstance(wanted, list) and name not in wanted
        return _named(wanted, name) and (not by_end or _in_layers(fields, name))
    except re.error as error:
        raise ConfigInvalid(f"a module pattern of the adapter is no regular expression: {error}") from error


def _named(wanted: str | list[str], name: str) -> bool:
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(name == entry or name.endswith(f".{entry}") for entry in wanted)


def _in_layers(fields: Mapping[str, Any], name: str) -> bool:
    """Whether the first index in a module's name is one of `layers_to_transform`."""
    indexes, patterns = fields.get("layers_to_transform"), fields.get("layers_pattern") or []
    if indexes is None or indexes == []:
        return True
    if patterns:
        listed = [patterns] if isinstance(patterns, str) else patterns
        found = next((match for pattern in listed if (match := re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name))), None)
    else:
        found = re.match(r".*?\.[^.]*\.(\d+)\.", name)
    return found is not None and int(found[1]) in (indexes if isinstance(indexes, list) else [indexes])


def by_pattern(patterns: Mapping[str, Any], name: str, default: Any) -> Any:
    """The value that `rank_pattern` or `alpha_pattern` has for a module: of the first pattern that matches the name or its end."""
    return next((value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", name)), default)
