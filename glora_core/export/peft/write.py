"""A subnet as a peft adapter: a folder that `peft.PeftModel.from_pretrained` loads onto the bare backbone.

Plain LoRA where no linear layer needs more, peft's GLoRA otherwise. Layers that the format cannot adapt, the head, and batch norms
that take up a bias travel whole, as `modules_to_save`. Does not import peft.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from glora_core.configs import NONE, LayerConfig, SubnetConfig
from glora_core.errors import ConfigInvalid, ExportMismatch
from glora_core.export.peft.layout import (
    CONFIG_FILE,
    PEFT_VERSION,
    PREFIX,
    WEIGHTS_FILE,
    exactly,
    glora_takes,
    head_names,
    hidden_by,
    lora_takes,
    plain_modules,
    saved_by,
)
from glora_core.layers import GLoRAConv1D, GLoRALayer
from glora_core.layers.kinds import kind_of, matrix_size
from glora_core.space import LayerShape
from glora_core.supernet import Supernet

Way = Literal["lora", "glora", "whole", "none"]


def write_peft(folder: Path, supernet: Supernet, config: SubnetConfig, whole: Sequence[str] = ()) -> Path:
    """Write a subnet, with the trained head, as an adapter of stock peft.

    The numbers are those that act, computed in float64 and rounded once to float32; modules that travel whole keep the backbone's
    dtype. Nothing is written unless all of the subnet can be.

    Args:
        folder: created if needed; of its files only `adapter_config.json` and `adapter_model.safetensors` are replaced.
        supernet: the trained supernet.
        config: the subnet.
        whole: names of further modules to ship as they are, such as those that an imported adapter had replaced.

    Returns:
        The folder.

    Raises:
        ConfigInvalid: the config is not in the supernet's space, or peft's format has no place for a part of it: a bias gained by
            a layer without one, or a module whose name peft cannot tell from another's.
        ExportMismatch: a number is not finite, or too large for float32.
    """
    supernet.check(config)
    plan = _Plan(supernet, config, tuple(whole))
    _check_names(plan)
    tensors = plan.tensors()
    broken = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if broken:
        raise ExportMismatch(f"{len(broken)} tensors hold numbers that are not finite in {tensors[broken[0]].dtype}, such as {broken[0]!r}")
    folder.mkdir(parents=True, exist_ok=True)
    drafts = {folder / f".{name}.part": folder / name for name in (WEIGHTS_FILE, CONFIG_FILE)}
    weights, fields = drafts
    save_file({PREFIX + name: value.contiguous() for name, value in tensors.items()}, weights, metadata={"format": "pt"})
    fields.write_text(json.dumps(plan.fields(), indent=2, sort_keys=True) + "\n")
    for draft, final in drafts.items():
        draft.replace(final)
    return folder


@dataclass(frozen=True)
class _Target:
    """An adapted layer: its place in the space, the part of its config that acts on it and not on a batch norm, and how it travels."""

    index: int
    shape: LayerShape
    layer: GLoRALayer
    config: LayerConfig
    way: Way


@dataclass(frozen=True)
class _Plan:
    """How each part of a subnet travels. `peft_type` is GLORA if some linear layer needs it, else LORA."""

    supernet: Supernet
    config: SubnetConfig
    extra: tuple[str, ...]

    @cached_property
    def targets(self) -> list[_Target]:
        """The adapted layers in the space's order, each with the way it travels in the format chosen."""
        found, whole = [], {*self.extra, *head_names(self.supernet.backbone)}
        for index, (shape, layer) in enumerate(self.supernet.layers()):
            own = _acting_on_layer(shape, self.config[index])
            found.append(_Target(index, shape, layer, own, "whole" if shape.name in whole else _way(layer.geometry, own)))
        return [_in_glora(target) for target in found] if any(target.way == "glora" for target in found) else found

    @property
    def peft_type(self) -> str:
        """`GLORA` or `LORA`."""
        return "GLORA" if any(target.way == "glora" for target in self.targets) else "LORA"

    @cached_property
    def placeholder(self) -> str:
        """A module for a low-rank update of zero, where no layer has one: peft loads no adapter without a target."""
        if any(target.way in ("lora", "glora") for target in self.targets):
            return ""
        idle = [target.shape.name for target in self.targets if target.way == "none" and lora_takes(target.layer.geometry)]
        return idle[0] if idle else _smallest_unused(self)

    @cached_property
    def adapted(self) -> list[_Target]:
        """The layers that get tensors of the adapter's own kind."""
        return [target for target in self.targets if target.way in ("lora", "glora")]

    @property
    def names(self) -> list[str]:
        """Names of the modules that peft is to adapt."""
        return [target.shape.name for target in self.adapted] or [self.placeholder]

    @cached_property
    def absorbers(self) -> list[_Target]:
        """The layers whose bias a batch norm takes up in this subnet."""
        return [target for target in self.targets if target.config != self.config[target.index]]

    @cached_property
    def saved(self) -> list[str]:
        """Names of the modules that travel whole."""
        whole = [target.shape.name for target in self.targets if target.way == "whole"]
        norms = [target.shape.absorber for target in self.absorbers]
        return sorted({*head_names(self.supernet.backbone), *whole, *norms, *self.extra})

    def tensors(self) -> dict[str, Tensor]:
        """Everything for the weights file, by names in the bare backbone."""
        found: dict[str, Tensor] = {}
        for target in self.adapted:
            own = _lora(target) if self.peft_type == "LORA" else _glora(target, self.rank)
            found |= {f"{target.shape.name}.{part}": _float32(value) for part, value in own.items()}
        if self.placeholder:
            found |= _nothing(self.placeholder, dict(plain_modules(self.supernet.backbone))[self.placeholder])
        merged: dict[str, Tensor] = {}
        for target in self.targets:
            if target.way == "whole" or target in self.absorbers:
                merged |= self.supernet.merged_layer(target.index, self.config)
        return found | {key: value for name in self.saved for key, value in self._state(name, merged).items()}

    def _state(self, name: str, merged: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state of a module that travels whole, merged where a layer or a bias is merged into it."""
        module = self.supernet.backbone.get_submodule(name)
        own = {} if isinstance(module, GLoRALayer) else {f"{name}.{key}": value for key, value in module.state_dict().items()}
        own |= {key: value for key, value in merged.items() if key.rpartition(".")[0] == name}
        return {key: value.detach().cpu().clone() for key, value in own.items()}

    @property
    def rank(self) -> int:
        """The one rank of all factors in peft's GLoRA, which the others are padded to."""
        return max([1, *(target.config[tensor].rank for target in self.adapted for tensor in "AB")])

    def fields(self) -> dict[str, Any]:
        """What `adapter_config.json` says."""
        common = {
            "peft_type": self.peft_type,
            "task_type": None,
            "base_model_name_or_path": None,
            "inference_mode": True,
            "target_modules": exactly(self.names),
            "bias": "none",
            "modules_to_save": self.saved or None,
            "peft_version": PEFT_VERSION,
        }
        if self.peft_type == "LORA":
            return common | _lora_fields(self.adapted)
        return common | {"r": self.rank, "config_A_B": "lora", "config_C": "vector", "config_D_E": "vector", "init_weights": True}


def _acting_on_layer(shape: LayerShape, config: LayerConfig) -> LayerConfig:
    """The part of a layer's config that does not act on a batch norm in its stead.

    Raises:
        ConfigInvalid: the layer would gain a bias.
    """
    own = config if shape.bias else replace(config, C=NONE, E=NONE)
    if own == config or shape.absorber:
        return own
    raise ConfigInvalid(
        f"layer {shape.name!r} has no bias and would gain one by C or E ({config.code}), for which peft has no place;"
        " accepted there: N for C and E"
    )


def _way(module: nn.Module, config: LayerConfig) -> Way:
    """How a layer travels if the format has a place for it."""
    if config == LayerConfig():
        return "none"
    if config == LayerConfig(B=config.B) and config.B.kind == "lora" and lora_takes(module):
        return "lora"
    return "glora" if glora_takes(module) else "whole"


def _in_glora(target: _Target) -> _Target:
    """The same layer in peft's GLoRA format, which has no way to adapt convolutions and `Conv1D`."""
    return replace(target, way="glora" if glora_takes(target.layer.geometry) else "whole") if target.way == "lora" else target


def _lora(target: _Target) -> dict[str, Tensor]:
    """Peft's LoRA: lora_A (r, in), lora_B (out, r), of a convolution (r, in, height, width), (out, r, 1, 1). It scales them by 1."""
    down, up = target.layer.support.factors("B", target.config.B.rank, torch.float64)
    if isinstance(target.layer.geometry, nn.Conv2d):
        return {"lora_A.weight": target.layer.layout(up), "lora_B.weight": down[:, :, None, None]}
    return {"lora_A.weight": up, "lora_B.weight": down}


def _lora_fields(adapted: Sequence[_Target]) -> dict[str, Any]:
    ranks = {target.shape.name: target.config.B.rank for target in adapted}
    largest = max(ranks.values(), default=1)
    pattern = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != largest}
    transposed = bool(adapted) and all(kind_of(target.layer.geometry) is GLoRAConv1D for target in adapted)
    scales = {"r": largest, "lora_alpha": largest, "rank_pattern": pattern, "alpha_pattern": pattern}
    return {**scales, "lora_dropout": 0.0, "fan_in_fan_out": transposed, "init_lora_weights": True}


def _glora(target: _Target, rank: int) -> dict[str, Tensor]:
    """Peft's GLoRA: A and B as factors (out, r), (r, in); C (in, 1), D and E (out,), or zeros in their place without a bias."""
    support, config, inputs, outputs = target.layer.support, target.config, target.shape.in_features, target.shape.out_features
    found = {}
    for tensor in "AB":
        found[f"glora_{tensor}.Xd"], found[f"glora_{tensor}.Xu"] = _padded(target, tensor, rank)
    for tensor, size in (("C", (inputs, 1)), ("D", (outputs,)), ("E", (outputs,))):
        acting = support.acting(tensor, config[tensor], torch.float64)
        dense = torch.zeros(size) if acting is None else acting.reshape(-1, *size[1:]).expand(size)
        found[f"glora_{tensor}.{'X' if target.shape.bias else 'zeros'}"] = dense
    return found


def _padded(target: _Target, tensor: str, rank: int) -> tuple[Tensor, Tensor]:
    """A or B as factors of a given rank: a vector v as v·1ᵀ, a scalar likewise, zeros beyond its own rank."""
    support, choice = target.layer.support, target.config[tensor]
    down = torch.zeros(target.shape.out_features, rank, dtype=torch.float64)
    up = torch.zeros(rank, target.shape.in_features, dtype=torch.float64)
    if choice.kind == "lora":
        down[:, : choice.rank], up[: choice.rank] = support.factors(tensor, choice.rank, torch.float64)
    else:
        up[0] = 1.0
        acting = support.acting(tensor, choice, torch.float64)
        down[:, 0] = 0.0 if acting is None else acting.reshape(-1)
    return down, up


def _float32(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float32, copy=True)


def _nothing(name: str, module: nn.Module) -> dict[str, Tensor]:
    """A LoRA of rank 1 that adds zero to a module."""
    if isinstance(module, nn.Embedding):
        sizes = {"lora_embedding_A": (1, module.num_embeddings), "lora_embedding_B": (module.embedding_dim, 1)}
    else:
        bare = module.bare() if isinstance(module, GLoRALayer) else module
        rows, columns = matrix_size(bare)
        kernel = bare.weight.shape[1:] if isinstance(bare, nn.Conv2d) else (columns,)
        sizes = {"lora_A.weight": (1, *kernel), "lora_B.weight": (rows, *(1,) * len(kernel))}
    return {f"{name}.{part}": torch.zeros(size) for part, size in sizes.items()}


def _smallest_unused(plan: _Plan) -> str:
    """The smallest module outside adapted layers and those that travel whole which peft's LoRA takes; embeddings as a last resort."""
    taken = tuple(f"{name}." for name in plan.saved)
    sizes = {
        name: (isinstance(module, nn.Embedding), sum(parameter.numel() for parameter in module.parameters()))
        for name, module in plain_modules(plan.supernet.backbone)
        if (isinstance(module, nn.Embedding) or lora_takes(module)) and not f"{name}.".startswith(taken)
    }
    if not sizes:
        raise ConfigInvalid("every layer of this subnet would travel whole, and peft loads no adapter without a layer to adapt")
    return min(sizes, key=lambda name: sizes[name])


def _check_names(plan: _Plan) -> None:
    """Raise ConfigInvalid where peft would take a name for another module's, too, or not find a module."""
    modules, listed = dict(plain_modules(plan.supernet.backbone)), ", ".join(plan.saved)
    for name in plan.saved:
        if name not in modules:
            raise ConfigInvalid(f"module {name!r} is not in the backbone; accepted are names such as {next(iter(modules))!r}")
        inner = [other for other, module in modules.items() if isinstance(module, GLoRALayer) or other in plan.saved]
        if any(other.startswith(f"{name}.") for other in inner):
            raise ConfigInvalid(
                f"module {name!r} cannot travel whole: there are adapted layers in it, or modules that travel by themselves"
            )
    for name in saved_by(plan.saved, [*modules, *(f"{target}.base_layer" for target in plan.names)]):
        if name not in plan.saved:
            raise ConfigInvalid(
                f"module {name!r} would be replaced too, for peft's modules_to_save ({listed}) match by the end of a name;"
                " accepted: that module in whole=, too, or a subnet that leaves those of the same ending as they are"
            )
    for name in plan.names:
        if hidden_by(plan.saved, name):
            raise ConfigInvalid(f"layer {name!r} would not be adapted: peft leaves out what modules_to_save ({listed}) name")
