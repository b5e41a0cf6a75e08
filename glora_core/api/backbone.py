"""A pretrained backbone by name, and what is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from glora_core import backbones
from glora_core.backbones import BackboneInfo, BackboneSpec
from glora_core.backbones.fingerprint import weights_hash
from glora_core.checks import check_whole
from glora_core.space import LayerShape


@dataclass(frozen=True)
class Backbone:
    """A pretrained network, and what is known of it.

    Attributes:
        model: with a fresh head; a `Supernet` takes it over.
        spec, info: how it was asked for, and its sizes, transform and licence.
        weights_sha256: hash of its weights, head left out.
    """

    model: nn.Module
    spec: BackboneSpec
    info: BackboneInfo
    weights_sha256: str

    @property
    def layers(self) -> tuple[LayerShape, ...]:
        """The layers that adapt."""
        return self.info.layers


def load(
    name: str, classes: int, *, weights: str | None = None, image_size: int | None = None, layers: str | Sequence[str] = (), **task: Any
) -> Backbone:
    """A pretrained backbone by name, with a head of `classes` outputs.

    Args:
        name: what `timm.create_model` takes, or `transformers:` and a folder or hub name.
        classes: at least 1.
        weights, image_size, layers, task: see `BackboneSpec`; a single pattern of `layers` may be given as it is.

    Raises:
        BackboneUnknown, BackboneUnsupported, ConfigInvalid: see `glora_core.backbones`.
    """
    check_whole("classes", classes, 1)
    spec = BackboneSpec(name, weights, image_size, as_tuple(layers), **task)
    info = backbones.describe(spec)  # first, since it costs little and refuses what could not be adapted
    model = backbones.load(spec, classes)
    return Backbone(model, spec, info, weights_hash(model))


def as_tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    """Names as a tuple, a single one too: as a sequence, a text is its letters."""
    return (names,) if isinstance(names, str) else tuple(names)
