"""timm models by name: created, with their weights from timm, from a hub or from a local file.

A name is whatever `timm.create_model` takes: a timm model (`vit_tiny_patch16_224.augreg_in21k`), `hf-hub:owner/name`,
or `local-dir:/folder` (a `config.json` and a `model.safetensors` as timm writes them).
"""

import json
import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from timm.data import resolve_data_config
from timm.models import load_state_dict
from torch import nn

from glora_core.backbones.adaptable import adapted_layers, classifier
from glora_core.backbones.depth import residual_branches
from glora_core.backbones.spec import BackboneInfo, BackboneSpec, Transform
from glora_core.errors import BackboneUnknown, BackboneUnsupported
from glora_core.names import local_folder

_PRETRAINING = {"pre_logits", "head_dist", "dist_token", "mask_token"}
"""Parts of the names of tensors that pretraining alone used, besides a classifier's: a file may hold them."""


def info(spec: BackboneSpec, model: Any) -> BackboneInfo:
    """The facts of a timm model.

    Raises:
        BackboneUnknown: it has no pretrained weights.
        BackboneUnsupported: it does not take RGB images, or has nothing that can be adapted.
        ConfigInvalid: a pattern of `spec.layers` matches no layer.
    """
    cfg = model.pretrained_cfg
    source = spec.weights or cfg.get("file") or cfg.get("hf_hub_id") or cfg.get("url") or ""
    if not source:
        raise BackboneUnknown(f"backbone {spec.name!r} has no pretrained weights; give a file of weights or a name that has them")
    transform = input_transform(model, spec)
    if transform.input_size[0] != 3:
        raise BackboneUnsupported(f"backbone {spec.name!r} takes images of {transform.input_size[0]} channels; accepted are 3 (RGB)")
    return BackboneInfo(
        architecture=cfg["architecture"],
        arguments=json.loads(json.dumps(getattr(model, "_model_args", {}), default=str)),
        parameters=sum(p.numel() for p in model.parameters()),
        layers=adapted_layers(model, spec.layers),
        transform=transform,
        source=str(source),
        license="" if spec.weights else str(cfg.get("license") or ""),  # the name's licence is that of the weights it stands for
        branches=len(residual_branches(model)),
    )


def input_transform(model: nn.Module, spec: BackboneSpec) -> Transform:
    """The transform of the model's pretrained configuration at the spec's image size."""
    size = {"input_size": (3, spec.image_size, spec.image_size)} if spec.image_size else {}
    return Transform.of(resolve_data_config(size, model=model))


def create(spec: BackboneSpec, *, num_classes: int, pretrained: bool) -> nn.Module:
    """A timm model.

    Raises:
        BackboneUnknown: the name or its weights cannot be resolved (a hub out of reach counts as such).
        BackboneUnsupported: its head cannot be told from the rest of its weights.
    """
    weights = _weights_file(spec)
    arguments: dict[str, Any] = {"pretrained": pretrained and weights is None, "num_classes": num_classes}
    try:
        try:
            model: nn.Module = timm.create_model(spec.name, img_size=spec.image_size, **arguments)
        except TypeError:  # an architecture that takes any size, and no such argument
            model = timm.create_model(spec.name, **arguments)
        if pretrained and weights is not None:
            _load_weights(model, weights)
    except BackboneUnsupported:
        raise
    except (RuntimeError, ValueError, AssertionError, OSError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        raise BackboneUnknown(_explain(spec, error)) from error
    return model


def _weights_file(spec: BackboneSpec) -> Path | None:
    """The local file that holds the weights, if they are not fetched by timm."""
    if spec.weights is not None:
        if not Path(spec.weights).is_file():
            raise BackboneUnknown(f"weights file {spec.weights!r} of backbone {spec.name!r} does not exist or is not a file")
        return Path(spec.weights)
    folder = local_folder(spec.name)
    files = () if folder is None else (Path(folder) / name for name in ("model.safetensors", "pytorch_model.bin"))
    return next((file for file in files if file.is_file()), None)


def _load_weights(model: nn.Module, file: Path) -> None:
    """Load a weights file through the architecture's own filter (which resizes position tables); the head is left out.

    Raises:
        ValueError: the file is no weights file, lacks tensors of the backbone or has others, or their shapes differ.
    """
    if file.suffix == ".npz":
        return _load_arrays(model, file)
    try:
        state = load_state_dict(str(file), device="cpu", weights_only=True)
    except (LookupError, EOFError, ArithmeticError, UnpicklingError, SafetensorError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"{file} is not a weights file: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    state = adapt(state, model) if adapt is not None else state
    classes = classifier(model)
    head = {id(parameter) for parameter in classes.parameters()} if classes is not None else set()
    names = {name for name, parameter in model.named_parameters() if id(parameter) in head}
    missing, unexpected = model.load_state_dict({k: v for k, v in state.items() if k not in names}, strict=False)
    lacking = sorted(set(missing) - names)
    if lacking:
        raise ValueError(f"{file} lacks {len(lacking)} tensors of this backbone, such as {lacking[0]!r}")
    buffers = {name for name, _ in model.named_buffers()}  # older files hold some that are no longer written
    heads = tuple(name.rpartition(".")[0] + "." for name in names)
    others = (key for key in unexpected if key not in buffers and not key.startswith(heads))
    surplus = sorted(key for key in others if _PRETRAINING.isdisjoint(key.split(".")))
    if surplus:
        few = ", ".join(map(repr, surplus[:3]))
        raise ValueError(f"{file} is of another architecture: it has {len(surplus)} tensors that this backbone lacks, such as {few}")


def _load_arrays(model: Any, file: Path) -> None:
    """Load a `.npz` of arrays, as the authors of the vision transformer published theirs, by the model's own reader; the head is not kept.

    Raises:
        KeyError, ValueError: the model reads no such files, or the file is none of its.
    """
    if not hasattr(model, "load_pretrained"):
        raise ValueError(f"{type(model).__name__} reads no .npz files; accepted are .safetensors and .pth")
    classes = classifier(model)
    before = None if classes is None else {name: value.clone() for name, value in classes.state_dict().items()}
    model.load_pretrained(str(file))
    if classes is not None and before is not None:
        classes.load_state_dict(before)


def _explain(spec: BackboneSpec, error: Exception) -> str:
    if isinstance(error, RuntimeError) and "Unknown model" in str(error):
        near = timm.list_models(f"*{spec.name.split('.')[0][:12]}*")[:3]
        hint = f"; near it: {', '.join(near)}" if near else ""
        return f"backbone {spec.name!r} is not a timm model{hint}; `timm.list_models(pretrained=True)` lists them"
    if isinstance(error, LocalEntryNotFoundError | ConnectionError | TimeoutError):
        return f"the weights of {spec.name!r} cannot be fetched, the model hub is out of reach; give a local file or local-dir:"
    return f"backbone {spec.name!r} cannot be created: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
