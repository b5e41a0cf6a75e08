"""What a backbone is, in plain data: how one is asked for, how its input is made, and what a control plane must know of it.

Plain Python, no torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from glora_core.errors import BackboneUnsupported
from glora_core.space import LayerShape


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Which backbone, and how it is created.

    Args:
        name: a name that `timm.create_model` resolves, or `transformers:` and a folder or a name on the model hub.
        weights: a local weights file (safetensors or a torch checkpoint) to use instead of a timm name's own.
        image_size: side of the square input in pixels, where it differs from the backbone's default.
        layers: glob patterns over module names of the layers to adapt; all that can be, but stem and head, if empty.
        task: what a transformers model is for: `classification`, or `causal-lm`, which has no head of its own.
    """

    name: str
    weights: str | None = None
    image_size: int | None = None
    layers: tuple[str, ...] = ()
    task: Literal["classification", "causal-lm"] = "classification"

    @staticmethod
    def of(stored: Mapping[str, Any]) -> "BackboneSpec":
        """From plain JSON types."""
        return BackboneSpec(**{**stored, "layers": tuple(stored.get("layers", ()))})


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
        architecture: timm's name of the architecture, or the class of a transformers model.
        arguments: what timm was given to build it beyond its name, such as the image size.
        parameters: number of parameters of the bare backbone.
        layers: the layers that adapt, in forward order.
        transform: the input transform; None for a model that reads text.
        source: where the weights come from, in words, or an empty string if there are none.
        license: the licence recorded for the weights, or an empty string; of a file of weights nothing is known.
        branches: residual branches that training may leave out at random (`drop_path`).
        max_length: most tokens that a model reads; None for images, and where nothing bounds them.
        added_tokens: how many of them its tokenizer adds to every text, where that was looked at.
    """

    architecture: str
    arguments: dict[str, Any]
    parameters: int
    layers: tuple[LayerShape, ...]
    transform: Transform | None
    source: str
    license: str
    branches: int = 0
    max_length: int | None = None
    added_tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads them back."""
        return asdict(self)

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> "BackboneInfo":
        """The info stored by `to_dict`."""
        layers = tuple(LayerShape(**layer) for layer in stored["layers"])
        rest = {key: stored[key] for key in ("architecture", "arguments", "parameters", "source", "license")}
        transform = stored["transform"]
        transform = None if transform is None else Transform.of(transform)
        later = {key: stored[key] for key in ("branches", "max_length", "added_tokens") if key in stored}
        return BackboneInfo(layers=layers, transform=transform, **later, **rest)

    @property
    def reads_texts(self) -> bool:
        """Whether the model reads texts; else it reads images."""
        return self.transform is None

    @property
    def images(self) -> Transform:
        """The input transform. Raises BackboneUnsupported for a model that reads text."""
        if self.transform is None:
            raise BackboneUnsupported(f"{self.architecture} reads text; accepted here are image backbones")
        return self.transform
