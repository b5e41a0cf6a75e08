"""A subnet as a peft adapter: a folder that `peft.PeftModel.from_pretrained` loads onto the bare backbone.

Plain LoRA where no linear layer needs more, peft's GLoRA otherwise. Layers that the format cannot adapt, the head, and batch norms
that take up a bias travel whole, as `modules_to_save`. Does not import peft.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from glora_core.configs import SubnetConfig
from glora_core.errors import ExportMismatch
from glora_core.export.peft.layout import CONFIG_FILE, PEFT_VERSION, PREFIX, WEIGHTS_FILE
from glora_core.export.peft.plan import Plan, Target
from glora_core.layers import GLoRAConv1D, GLoRALayer
from glora_core.layers.kinds import kind_of, matrix_size
from glora_core.supernet import Supernet


@torch.no_grad()
def write_peft(folder: str | Path, supernet: Supernet, config: SubnetConfig, whole: Sequence[str] = ()) -> Path:
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
    plan = Plan(supernet, config, tuple(whole))
    plan.check_names()
    tensors = _tensors(plan)
    broken = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if broken:
        raise ExportMismatch(f"{len(broken)} tensors hold numbers that are not finite in {tensors[broken[0]].dtype}, such as {broken[0]!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drafts = {folder / f".{name}.part": folder / name for name in (WEIGHTS_FILE, CONFIG_FILE)}
    weights, options = drafts
    save_file({PREFIX + name: value.contiguous() for name, value in tensors.items()}, weights, metadata={"format": "pt"})
    options.write_text(json.dumps(_fields(plan), indent=2, sort_keys=True) + "\n")
    for draft, final in drafts.items():
        draft.replace(final)
    return folder


def _tensors(plan: Plan) -> dict[str, Tensor]:
    """Everything for the weights file, by names in the bare backbone."""
    found: dict[str, Tensor] = {}
    for target in plan.adapted:
        own = _lora(target) if plan.peft_type == "LORA" else _glora(target, plan.rank)
        found |= {f"{target.shape.name}.{part}": value.to("cpu", torch.float32, copy=True) for part, value in own.items()}
    if plan.placeholder:
        found |= _nothing(plan.placeholder, _bare(plan, plan.placeholder))
    merged: dict[str, Tensor] = {}
    for target in plan.targets:
        if target.way == "whole" or target in plan.absorbed:
            merged |= plan.supernet.merged_layer(target.index, plan.config)
    return found | {key: value for name in plan.saved for key, value in _state(plan.supernet, name, merged).items()}


def _state(supernet: Supernet, name: str, merged: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a module that travels whole, merged where a layer or a bias is merged into it."""
    module = supernet.backbone.get_submodule(name)
    own = {} if isinstance(module, GLoRALayer) else {f"{name}.{key}": value for key, value in module.state_dict().items()}
    own |= {key: value for key, value in merged.items() if key.rpartition(".")[0] == name}
    return {key: value.cpu().clone() for key, value in own.items()}


def _fields(plan: Plan) -> dict[str, Any]:
    """What `adapter_config.json` says."""
    common = {
        "peft_type": plan.peft_type,
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": plan.target_modules,
        "bias": "none",
        "modules_to_save": plan.saved or None,
        "peft_version": PEFT_VERSION,
    }
    if plan.peft_type == "LORA":
        return common | _lora_fields(plan)
    return common | {"r": plan.rank, "config_A_B": "lora", "config_C": "vector", "config_D_E": "vector", "init_weights": True}


def _lora_fields(plan: Plan) -> dict[str, Any]:
    """Ranks, and scales equal to the ranks, so that peft multiplies by 1."""
    ranks = {target.shape.name: target.config.B.rank for target in plan.adapted}
    largest = max(ranks.values(), default=1)
    pattern = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != largest}
    scales = {"r": largest, "lora_alpha": largest, "rank_pattern": pattern, "alpha_pattern": pattern}
    transposed = all(kind_of(_bare(plan, name)) is GLoRAConv1D for name in plan.names)
    return {**scales, "lora_dropout": 0.0, "fan_in_fan_out": transposed, "init_lora_weights": True}


def _bare(plan: Plan, name: str) -> nn.Module:
    """A module of the backbone as it was before it was adapted."""
    module = plan.supernet.backbone.get_submodule(name)
    return module.bare() if isinstance(module, GLoRALayer) else module


def _lora(target: Target) -> dict[str, Tensor]:
    """Peft's LoRA: lora_A (r, in), lora_B (out, r); of a convolution (r, in, height, width), (out, r, 1, 1)."""
    down, up = target.layer.support.factors("B", target.config.B.rank, torch.float64)
    if isinstance(target.layer.geometry, nn.Conv2d):
        return {"lora_A.weight": target.layer.layout(up), "lora_B.weight": down[:, :, None, None]}
    return {"lora_A.weight": up, "lora_B.weight": down}


def _glora(target: Target, rank: int) -> dict[str, Tensor]:
    """Peft's GLoRA: A and B as factors (out, r), (r, in); C (in, 1), D and E (out,), or zeros in their place without a bias."""
    support, config, inputs, outputs = target.layer.support, target.config, target.shape.in_features, target.shape.out_features
    found: dict[str, Tensor] = {}
    for tensor in "AB":
        found[f"glora_{tensor}.Xd"], found[f"glora_{tensor}.Xu"] = _padded(target, tensor, rank)
    for tensor, size in (("C", (inputs, 1)), ("D", (outputs,)), ("E", (outputs,))):
        acting = support.acting(tensor, config[tensor], torch.float64)
        dense = torch.zeros(size) if acting is None else acting.reshape(-1, *size[1:]).expand(size)
        found[f"glora_{tensor}.{'X' if target.shape.bias else 'zeros'}"] = dense
    return found


def _padded(target: Target, tensor: str, rank: int) -> tuple[Tensor, Tensor]:
    """A or B as factors of a given rank: a vector v as v·1ᵀ, a scalar likewise, zeros beyond its own rank."""
    support, choice = target.layer.support, target.config[tensor]
    down = torch.zeros(target.shape.out_features, rank, dtype=torch.float64)
    up = torch.zeros(rank, target.shape.in_features, dtype=torch.float64)
    if choice.kind == "lora":
        down[:, : choice.rank], up[: choice.rank] = support.factors(tensor, choice.rank, torch.float64)
    else:
        acting = support.acting(tensor, choice, torch.float64)
        down[:, 0] = 0.0 if acting is None else acting.reshape(-1)
        up[0] = 1.0
    return down, up


def _nothing(name: str, module: nn.Module) -> dict[str, Tensor]:
    """A LoRA of rank 1 that adds zero to a module."""
    if isinstance(module, nn.Embedding):
        return {
            f"{name}.lora_embedding_A": torch.zeros(1, module.num_embeddings),
            f"{name}.lora_embedding_B": torch.zeros(module.embedding_dim, 1),
        }
    rows, columns = matrix_size(module)
    kernel = tuple(module.weight.shape[1:]) if isinstance(module, nn.Conv2d) else (columns,)
    ones = (1,) * len(kernel)
    return {f"{name}.lora_A.weight": torch.zeros(1, *kernel), f"{name}.lora_B.weight": torch.zeros(rows, *ones)}
