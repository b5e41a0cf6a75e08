"""Pretrained backbones by name: which exist, what they need, which of their layers adapt, and their weights.

A name is whatever `timm.create_model` takes, or `transformers:` and a folder or a name on the model hub.
Describing a backbone uses torch's meta device and reads no weights.
"""

import torch
from torch import nn

from glora_core.backbones import language, vision
from glora_core.backbones.adaptable import Inputs, adapted_layers, classifier, outputs, run
from glora_core.backbones.spec import BackboneInfo, BackboneSpec, Transform
from glora_core.backbones.vision import input_transform
from glora_core.names import transformers_name

__all__ = [
    "BackboneInfo",
    "BackboneSpec",
    "Inputs",
    "Transform",
    "adapted_layers",
    "classifier",
    "describe",
    "input_transform",
    "load",
    "outputs",
    "run",
    "skeleton",
]


def describe(spec: BackboneSpec) -> BackboneInfo:
    """The backbone's layers, sizes and transform, from torch's meta device.

    Raises:
        BackboneUnknown: no such name, or the weights file does not exist.
        BackboneUnsupported: nothing in it can be adapted.
        ConfigInvalid: a pattern of `spec.layers` matches no layer.
    """
    with torch.device("meta"):
        if transformers_name(spec.name) is not None:
            return language.info(spec, language.create(spec, num_classes=2, pretrained=False))
        return vision.info(spec, vision.create(spec, num_classes=0, pretrained=False))


def load(spec: BackboneSpec, num_classes: int) -> nn.Module:
    """The pretrained backbone in float32 and eval mode, with a fresh head of `num_classes` outputs.

    Raises:
        BackboneUnknown: the name or its weights cannot be resolved (a hub out of reach counts as such).
        BackboneUnsupported: it has several heads, or does not tell which is its own.
    """
    return _create(spec, num_classes, pretrained=True)


def skeleton(spec: BackboneSpec, num_classes: int) -> nn.Module:
    """The backbone without its pretrained weights, for loading a state dict that is already at hand."""
    return _create(spec, num_classes, pretrained=False)


def _create(spec: BackboneSpec, num_classes: int, *, pretrained: bool) -> nn.Module:
    create = vision.create if transformers_name(spec.name) is None else language.create
    return create(spec, num_classes=num_classes, pretrained=pretrained).float().eval()
