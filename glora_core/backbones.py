"""Pretrained backbones by name: which exist, what they need, which of their layers adapt, and their weights.

A name is whatever `timm.create_model` takes: a timm model (`vit_tiny_patch16_224.augreg_in21k`), `hf-hub:owner/name`,
or `local-dir:/folder` (a `config.json` and a `model.safetensors` as timm writes them).
Imports torch and timm; describing a backbone uses torch's meta device and reads no weights.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from timm.data import resolve_data_config
from timm.data.model_config import resolve_input_data_config
from timm.models import load_state_dict
from torch import nn

from glora_core.errors import BackboneUnknown, BackboneUnsupported
from glora_core.names import local_folder
from glora_core.space import LayerShape


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Which backbone, and how it is created.

    Args:
        name: a name that `timm.create_model` resolves.
        weights: a local weights file (safetensors or a torch checkpoint) to use instead of the name's own.
        image_size: side of the square input in pixels, where it differs from the backbone's default.
    """

    name: str
    weights: str | None = None
    image_size: int | None = None


@dataclass(frozen=True, slots=True)
class Transform:
    """How an image becomes the backbone's input: the arguments of `timm.data.create_transform`."""

    input_size: tuple[int, int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    crop_mode: str

    @staticmethod
    def of(config: Mapping[str, Any]) -> "Transform":
        """From a timm data config, or from a stored dict; other keys are ignored."""
        return Transform(
            tuple(config["input_size"]),
            config["interpolation"],
            tuple(config["mean"]),
            tuple(config["std"]),
            config["crop_pct"],
            config["crop_mode"],
        )


@dataclass(frozen=True, slots=True)
class BackboneInfo:
    """What a control plane must know of a backbone without holding its weights.

    Attributes:
        architecture: timm's name of the architecture.
        arguments: what timm was given to build it beyond its name, such as the image size.
        parameters: number of parameters of the bare backbone.
        layers: the layers that adapt, in forward order.
        transform: the input transform.
        source: where the weights come from, in words, or an empty string if there are none.
        license: the licence timm records for the weights, or an empty string.
    """

    architecture: str
    arguments: dict[str, Any]
    parameters: int
    layers: tuple[LayerShape, ...]
    transform: Transform
    source: str
    license: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads them back."""
        return asdict(self)

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> "BackboneInfo":
        """The info stored by `to_dict`."""
        layers = tuple(LayerShape(**layer) for layer in stored["layers"])
        rest = {key: stored[key] for key in ("architecture", "arguments", "parameters", "source", "license")}
        return BackboneInfo(layers=layers, transform=Transform.of(stored["transform"]), **rest)


def describe(spec: BackboneSpec) -> BackboneInfo:
    """The backbone's layers, sizes and transform, from torch's meta device.

    Raises:
        BackboneUnknown: no such name, or the weights file does not exist.
        BackboneUnsupported: nothing in it can be adapted.
    """
    with torch.device("meta"):
        model: Any = _create(spec, num_classes=0, pretrained=False)
    cfg = model.pretrained_cfg
    source = spec.weights or cfg.get("file") or cfg.get("hf_hub_id") or cfg.get("url") or ""
    if not source:
        raise BackboneUnknown(f"backbone {spec.name!r} has no pretrained weights; give a file of weights or a name that has them")
    return BackboneInfo(
        architecture=cfg["architecture"],
        arguments=json.loads(json.dumps(getattr(model, "_model_args", {}), default=str)),
        parameters=sum(p.numel() for p in model.parameters()),
        layers=adapted_layers(model),
        transform=input_transform(model, spec),
        source=str(source),
        license=str(cfg.get("license") or ""),
    )


def load(spec: BackboneSpec, num_classes: int) -> nn.Module:
    """The pretrained backbone in float32 and eval mode, with a fresh head of `num_classes` outputs.

    Raises:
        BackboneUnknown: the name or its weights cannot be resolved (a hub out of reach counts as such).
    """
    return _create(spec, num_classes=num_classes, pretrained=True).float().eval()


def skeleton(spec: BackboneSpec, num_classes: int) -> nn.Module:
    """The backbone without its pretrained weights, for loading a state dict that is already at hand."""
    return _create(spec, num_classes=num_classes, pretrained=False).float().eval()


@torch.no_grad()
def adapted_layers(model: nn.Module) -> tuple[LayerShape, ...]:
    """The linear layers that adapt by default: all with a bias that the forward pass calls, but the classifier.

    C, D and E act through the bias; a plain checkpoint of an architecture without one has no place for theirs.

    A layer whose weight the backbone uses by itself, without calling the layer, cannot be adapted by replacing it; one
    forward pass tells them apart; it costs nothing on the meta device.

    Raises:
        BackboneUnsupported: there is none, or the model cannot be run.
    """
    head, called = set(classifier(model).modules()), dict[nn.Module, None]()
    linears = {
        module: name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.bias is not None and module not in head
    }
    was_training = model.training
    hooks = [module.register_forward_pre_hook(lambda module, arguments: called.setdefault(module)) for module in linears]
    try:
        size, like = resolve_input_data_config(model)["input_size"], next(model.parameters())
        model.eval()(torch.zeros(1, *size, device=like.device, dtype=like.dtype))
    except RuntimeError as error:
        raise BackboneUnsupported(f"{type(model).__name__} cannot be run to find its layers: {error}") from error
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    layers = tuple(LayerShape(name, module.in_features, module.out_features) for module, name in linears.items() if module in called)
    if not layers:
        raise BackboneUnsupported(f"{type(model).__name__} has no linear layer to adapt; accepted are transformers such as timm's ViTs")
    return layers


def classifier(model: nn.Module) -> nn.Module:
    """The classification head of a timm model. Raises BackboneUnsupported for a model with several heads."""
    timm_model: Any = model
    head = timm_model.get_classifier()
    if not isinstance(head, nn.Module):
        raise BackboneUnsupported(
            f"{type(model).__name__} has several classifiers, such as a distillation head; accepted are models with one"
        )
    return head


def input_transform(model: nn.Module, spec: BackboneSpec) -> Transform:
    """The transform of the model's pretrained configuration at the spec's image size."""
    size = {"input_size": (3, spec.image_size, spec.image_size)} if spec.image_size else {}
    return Transform.of(resolve_data_config(size, model=model))


def _create(spec: BackboneSpec, *, num_classes: int, pretrained: bool) -> nn.Module:
    weights = _weights_file(spec)
    arguments: dict[str, Any] = {"pretrained": pretrained and weights is None, "num_classes": num_classes}
    try:
        try:
            model: nn.Module = timm.create_model(spec.name, img_size=spec.image_size, **arguments)
        except TypeError:  # an architecture that takes any size, and no such argument
            model = timm.create_model(spec.name, **arguments)
        if pretrained and weights is not None:
            _load_weights(model, weights)
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
        ValueError: the file is no weights file, or lacks tensors of the backbone, or their shapes differ.
    """
    try:
        state = load_state_dict(str(file), device="cpu", weights_only=True)
    except (LookupError, EOFError, ArithmeticError, UnpicklingError, SafetensorError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"{file} is not a weights file: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    state = adapt(state, model) if adapt is not None else state
    head = {id(parameter) for parameter in classifier(model).parameters()}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in head}
    missing = model.load_state_dict({k: v for k, v in state.items() if k not in names}, strict=False).missing_keys
    lacking = sorted(set(missing) - names)
    if lacking:
        raise ValueError(f"{file} lacks {len(lacking)} tensors of this backbone, such as {lacking[0]!r}")


def _explain(spec: BackboneSpec, error: Exception) -> str:
    if isinstance(error, RuntimeError) and "Unknown model" in str(error):
        near = timm.list_models(f"*{spec.name.split('.')[0][:12]}*")[:3]
        hint = f"; near it: {', '.join(near)}" if near else ""
        return f"backbone {spec.name!r} is not a timm model{hint}; `timm.list_models(pretrained=True)` lists them"
    if isinstance(error, LocalEntryNotFoundError | ConnectionError | TimeoutError):
        return f"the weights of {spec.name!r} cannot be fetched, the model hub is out of reach; give a local file or local-dir:"
    return f"backbone {spec.name!r} cannot be created: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
