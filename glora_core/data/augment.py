"""Random changes of training images, on whole batches, drawn from a generator of the caller's.

Imports torch.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

AREA = (0.5, 1.0)
"""Smallest and largest share of an image's area that `crop` keeps."""
ASPECT = 4 / 3
TURN = 15.0
"""Largest turn of `affine`, in degrees either way."""
SLANT = 0.1
"""Largest shift of `affine` to the side, in heights for a height."""
JITTER = 0.2
"""Largest relative change of contrast, and change of brightness in standard deviations, of `colour`."""


def augment(
    images: Tensor,
    kinds: Sequence[str],
    rng: np.random.Generator,
    rows: slice = slice(None),
    count: int | None = None,
    *,
    turned: float = 1.0,
) -> Tensor:
    """Images changed at random, each in its own way.

    `crop`: a random part of random shape, scaled back to the whole size; `affine`: turned and slanted; `flip`: mirrored left to right in
    one of two cases; `colour`: contrast and brightness.

    Args:
        images: (n, channels, height, width), normalised.
        rows, count: which of the `count` rows of a larger batch these images are, so that each gets what it would get there.
        turned: how often `affine` changes an image, 0–1.
    """
    count = len(images) if count is None else count
    if not len(images):  # a process whose share of a last, small batch is none
        return images
    drawn = torch.from_numpy(rng.random((count, 7)).astype(np.float32))[rows].to(images.device)
    area, aspect, left, top, mirrored, contrast, brightness = drawn.unbind(1)
    places = torch.eye(2, 3, device=images.device).expand(len(images), 2, 3)
    if "affine" in kinds:
        places = _turned(torch.from_numpy(rng.random((count, 3)).astype(np.float32))[rows].to(images.device), turned)
    if "crop" in kinds or "flip" in kinds:
        side = (AREA[0] + (AREA[1] - AREA[0]) * area).sqrt() if "crop" in kinds else torch.ones_like(area)
        shape = torch.exp((2 * aspect - 1) * math.log(ASPECT) / 2) if "crop" in kinds else torch.ones_like(area)
        width, height = (side * shape).clamp(max=1), (side / shape).clamp(max=1)
        sign = torch.where(mirrored < 0.5, -1.0, 1.0) if "flip" in kinds else torch.ones_like(mirrored)
        zero = torch.zeros_like(width)
        across = torch.stack([sign * width, zero, (2 * left - 1) * (1 - width)], 1)
        down = torch.stack([zero, height, (2 * top - 1) * (1 - height)], 1)
        last = torch.stack([zero, zero, torch.ones_like(zero)], 1)
        places = places @ torch.stack([across, down, last], 1)
    if {"affine", "crop", "flip"} & set(kinds):
        images = _read(images, places)
    if "colour" in kinds:
        change, shift = (JITTER * (2 * value.view(-1, 1, 1, 1) - 1) for value in (contrast, brightness))
        images = images * (1 + change) + shift
    return images


def _turned(drawn: Tensor, often: float) -> Tensor:
    """Places (n, 2, 3), see `_read`, of images turned and slanted about their middle, by numbers (n, 3) drawn from 0 to 1."""
    change = (2 * drawn[:, :2] - 1) * torch.tensor([math.radians(TURN), SLANT], device=drawn.device)
    turn, slant = torch.where(drawn[:, 2:] < often, change, 0.0).unbind(1)
    sine, cosine, zero = turn.sin(), turn.cos(), torch.zeros_like(turn)
    return torch.stack([torch.stack([cosine, slant - sine, zero], 1), torch.stack([sine, cosine, zero], 1)], 1)


def _read(images: Tensor, places: Tensor) -> Tensor:
    """Images read at other places: where to, as a matrix (2, 3) for each image, in half widths and heights from the middle."""
    grid = F.affine_grid(places, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="reflection", align_corners=False)
