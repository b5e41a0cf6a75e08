"""The random changes that training images may have, by name (`glora_core.data.augment` makes them). Plain Python, no torch."""

from typing import Literal, get_args

Augmentation = Literal["crop", "affine", "flip", "colour"]
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)
