"""The files of a peft adapter, and what they say of each layer: options checked, tensors sorted by module, shapes compared.

Raises ConfigInvalid with the name of the option, module or tensor that no subnet can express or that does not fit.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from glora_core.configs import TENSORS
from glora_core.errors import ConfigInvalid
from glora_core.export.peft.layout import CONFIG_FILE, PREFIX, WEIGHTS_FILE, by_pattern
from glora_core.export.peft.numbers import Numbers, Part, constant, factored, nothing
from glora_core.layers.adapted import bias_of
from glora_core.layers.kinds import matrix_size

Fields = Mapping[str, Any]
Parts = Mapping[str, Tensor]

_COMMON = {"peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"}
_COMMON |= {"r", "target_modules", "bias", "modules_to_save"}
_KNOWN = {
    "GLORA": _COMMON | {"config_A_B", "config_C", "config_D_E", "init_weights"},
    "LORA": _COMMON
    | {"exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora"}
    | {"lora_dropout", "fan_in_fan_out", "init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config"}
    | {"megatron_core", "qalora_group_size"},
}
"""Options that leave the merged weights alone, or whose effect is computed here. Any other must be off."""

_INITS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Ways to initialise LoRA that leave the backbone's weights as they are."""

_SETTINGS = {"config_A_B": ("lora", "vector", "constant", "none"), "config_C": ("lora", "vector", "none")}
_SETTINGS |= {"config_D_E": ("vector", "constant", "none")}
_DEFAULTS = {"config_A_B": "lora", "config_C": "lora", "config_D_E": "constant"}
_RANK = 8
"""peft's default of r and lora_alpha."""

_KEYS = {"GLORA": re.compile(r"(.+)\.(glora_[A-E]\.\w+)"), "LORA": re.compile(r"(.+)\.(lora_\w+(?:\.\w+)?)")}


def load_adapter(folder: Path) -> tuple[Fields, dict[str, Parts], dict[str, Tensor]]:
    """The options of an adapter, its own tensors by module and part, and the other tensors by their names in the bare model.

    Raises:
        ConfigInvalid: a file is missing or unreadable, the adapter is neither LoRA nor GLoRA, or an option cannot be expressed.
    """
    fields, tensors = _read_fields(folder / CONFIG_FILE), _read_tensors(folder)
    check_options(fields)
    adapted: dict[str, dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if not key.startswith(PREFIX):
            raise ConfigInvalid(f"tensor {key!r} of the adapter does not begin with {PREFIX!r}, as all do that peft saves")
        found = _KEYS[fields["peft_type"]].fullmatch(key.removeprefix(PREFIX))
        if found:
            adapted.setdefault(found[1], {})[found[2]] = value
        else:
            others[key.removeprefix(PREFIX)] = value
    return fields, dict(adapted), others


def _read_fields(path: Path) -> Fields:
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"{path} is not the {CONFIG_FILE} of a peft adapter: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigInvalid(f"{path} holds no object with the options of a peft adapter")
    return fields


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_FILE
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigInvalid(f"{path} cannot be read as safetensors, the only format accepted of an adapter's weights: {error}") from error


def check_options(fields: Fields) -> None:
    """Return if a subnet can express every option of an adapter. Raises ConfigInvalid with the name of one that it cannot."""
    kind = fields.get("peft_type")
    if kind not in tuple(_KNOWN):
        raise ConfigInvalid(f"peft_type {kind!r} cannot be read; accepted: LORA, GLORA")
    for name, value in fields.items():
        if value and name not in _KNOWN[kind]:
            raise ConfigInvalid(f"{name} = {value!r} of this {kind} adapter has no counterpart in a subnet; accepted: off")
    _check_common(fields)
    if kind == "LORA" and fields.get("init_lora_weights") not in _INITS:
        raise ConfigInvalid(
            f"init_lora_weights = {fields['init_lora_weights']!r} changes the backbone's own weights; accepted: the adapter converted to"
            " plain LoRA, by peft's save_pretrained(…, path_initial_model_for_weight_conversion=…)"
        )
    for name, accepted in _SETTINGS.items() if kind == "GLORA" else ():
        if fields.get(name, _DEFAULTS[name]) not in accepted:
            raise ConfigInvalid(f"{name} = {fields[name]!r} is unknown; accepted: {', '.join(accepted)}")


def _check_common(fields: Fields) -> None:
    rank, saved = fields.get("r", _RANK), fields.get("modules_to_save")
    if fields.get("bias", "none") != "none":
        raise ConfigInvalid(f"bias = {fields['bias']!r} trains biases outside the adapter; accepted: 'none'")
    if not isinstance(rank, int) or rank < 1:
        raise ConfigInvalid(f"r = {rank!r} is no rank; accepted: an integer of at least 1")
    if saved is not None and not (isinstance(saved, list) and all(isinstance(name, str) for name in saved)):
        raise ConfigInvalid(f"modules_to_save = {saved!r} cannot be read; accepted: a list of names")


def layer_numbers(fields: Fields, name: str, module: nn.Module, parts: Parts) -> Numbers:
    """What an adapter holds for one layer, in float64 and scaled as it acts.

    Raises:
        ConfigInvalid: tensors are missing, superfluous, not finite or of another shape than the module and the options call for.
    """
    read = _lora if fields["peft_type"] == "LORA" else _glora
    return read(fields, name, module, parts)


def _lora(fields: Fields, name: str, module: nn.Module, parts: Parts) -> Numbers:
    """B = scale · lora_B · lora_A; the scale is alpha / r, or alpha / √r of a rank-stabilised adapter."""
    rows, columns = matrix_size(module)
    rank, scale = _rank_and_scale(fields, name)
    kernel = module.get_parameter("weight").shape[1:] if isinstance(module, nn.Conv2d) else torch.Size([columns])
    ones = (1,) * (len(kernel) - 1)
    found = _exact(name, parts, {"lora_A.weight": (rank, *kernel), "lora_B.weight": (rows, rank, *ones)})
    return {"B": factored("B", found["lora_B.weight"].flatten(1) * scale, found["lora_A.weight"].flatten(1))}


def _rank_and_scale(fields: Fields, name: str) -> tuple[int, float]:
    try:
        rank = by_pattern(fields.get("rank_pattern") or {}, name, fields.get("r", _RANK))
        alpha = by_pattern(fields.get("alpha_pattern") or {}, name, fields.get("lora_alpha", _RANK))
        scale = alpha / (math.sqrt(rank) if fields.get("use_rslora") else rank)
    except (re.error, AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigInvalid(f"rank_pattern, alpha_pattern, r or lora_alpha give no rank and scale for {name!r}: {error}") from error
    if not math.isfinite(scale):
        raise ConfigInvalid(f"lora_alpha = {alpha!r} of layer {name!r} is not finite")
    return rank, scale


def _glora(fields: Fields, name: str, module: nn.Module, parts: Parts) -> Numbers:
    rows, columns = matrix_size(module)
    numbers = {}
    for tensor in TENSORS:
        option = next(option for option in _SETTINGS if tensor in option)
        setting = fields.get(option, _DEFAULTS[option])
        if tensor in "CDE" and bias_of(module) is None:
            setting = "none"  # peft leaves a layer without bias without one
        own = {part.removeprefix(f"glora_{tensor}."): value for part, value in parts.items() if part.startswith(f"glora_{tensor}.")}
        numbers[tensor] = _glora_tensor(f"{name}.glora_{tensor}", tensor, setting, own, (rows, columns, fields.get("r", _RANK)))
    return numbers


def _glora_tensor(name: str, tensor: str, setting: str, parts: Parts, sizes: tuple[int, int, int]) -> Part:
    """One of A–E under peft's setting for it; sizes: rows and columns of the layer's weight, and the rank."""
    rows, columns, rank = sizes
    height, width = (columns, 1) if tensor == "C" else (rows, columns)
    if setting == "lora":
        found = _exact(name, parts, {"Xd": (height, rank), "Xu": (rank, width)})
        return factored(tensor, found["Xd"], found["Xu"])
    if setting == "none":
        if any(bool(value.any()) for value in _exact(name, parts, dict.fromkeys(parts.keys() & {"zeros"}, ())).values()):
            raise ConfigInvalid(f"{name}.zeros of the adapter is not zero, though that tensor is switched off")
        return nothing()
    shapes = {"vector": (height,) if tensor in "DE" else (height, 1), "constant": (1,)}
    values = _exact(name, parts, {"X": shapes[setting]})["X"].flatten()
    return constant(tensor, values if setting == "vector" else values[0])


def _exact(name: str, parts: Parts, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of a layer in float64, if they are those expected; an empty shape is any."""
    if parts.keys() != shapes.keys():
        raise ConfigInvalid(f"{name!r} of the adapter has the tensors {sorted(parts)}; the options call for {sorted(shapes)}")
    for part, shape in shapes.items():
        if shape and tuple(parts[part].shape) != tuple(shape):
            raise ConfigInvalid(f"{name}.{part} of the adapter is of shape {tuple(parts[part].shape)}; this backbone takes {tuple(shape)}")
        if not bool(parts[part].isfinite().all()):
            raise ConfigInvalid(f"{name}.{part} of the adapter holds numbers that are not finite")
    return {part: value.double() for part, value in parts.items()}
