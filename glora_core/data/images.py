"""Splits as tensors: images resized once by the backbone's own transform, normalised on the way to the device.

Pixels are kept as bytes; dividing by 255 and normalising batch by batch gives the very floats that timm's evaluation
transform gives, at a quarter of the memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from timm.data import create_transform
from torch import Tensor

from glora_core.backbones import Transform
from glora_core.data.decoding import decode
from glora_core.data.labelled import ImageFolder


@dataclass(frozen=True)
class ImageSplit:
    """One split in memory.

    Attributes:
        pixels: (n, 3, height, width), uint8, after resize and crop.
        labels: (n,), int64.
        mean, std: per channel, of pixel values in 0–1.
    """

    pixels: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (k, 3, height, width), float32, and labels (k,) of the given rows."""
        return self._normalise(self.pixels[indices]), self.labels[indices]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self._normalise(self.pixels[start : start + size]), self.labels[start : start + size]

    def part(self, indices: Tensor) -> "ImageSplit":
        """The given rows as a split of their own."""
        return ImageSplit(self.pixels[indices], self.labels[indices], self.mean, self.std)

    def to(self, device: torch.device) -> "ImageSplit":
        """The same split with its tensors on a device."""
        return ImageSplit(self.pixels.to(device), self.labels.to(device), self.mean, self.std)

    def _normalise(self, pixels: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=pixels.device).view(shape)
        std = torch.tensor(self.std, device=pixels.device).view(shape)
        return pixels.float().div_(255).sub_(mean).div_(std)


def load_split(data: ImageFolder, split: str, transform: Transform) -> ImageSplit:
    """A split of a data set, or its `train+val`, by timm's evaluation transform without its normalisation.

    Raises:
        DataInvalid: an image can no longer be decoded.
    """
    resize = create_transform(
        input_size=transform.input_size,
        interpolation=transform.interpolation,
        crop_pct=transform.crop_pct,
        crop_mode=transform.crop_mode,
        mean=transform.mean,
        normalize=False,
    )
    examples = data.examples(split)
    channels, height, width = transform.input_size
    pixels = torch.empty(len(examples), channels, height, width, dtype=torch.uint8)
    for row, example in enumerate(examples):
        pixels[row] = resize(decode(data.source(example)))
    labels = torch.tensor([example.label for example in examples], dtype=torch.int64)
    return ImageSplit(pixels, labels, transform.mean, transform.std)
