"""Image files of every kind as upright RGB pixels, without torch.

What a person sees is what a network gets: turned by its EXIF orientation, transparency over white, 16 bits scaled to 8
and not clipped. Whatever cannot be decoded is refused by the file's name.
"""

import struct
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from glora_core.errors import DataInvalid

DECODING = 2
"""Number of these rules; whoever caches what was computed from pixels keeps it with the rest of the key."""
MAX_PIXELS = 89_478_485
"""Largest image, in pixels: 256 MiB of RGB, and Pillow's own bound against decompression bombs."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_NOT_PIXELS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""What Pillow tells by its first bytes, but does not decode without another program."""
_UNREADABLE = (OSError, EOFError, ValueError, SyntaxError, TypeError, KeyError, IndexError, OverflowError, struct.error)
"""What Pillow's readers raise for damaged files."""


class Encoded(BytesIO):
    """An image file's bytes, under a name for whoever has to find it."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self._name = name

    def __str__(self) -> str:
        return self._name


@cache
def extensions() -> frozenset[str]:
    """What names of image files end in, in small letters: of every format that Pillow decodes by itself."""
    known = Image.registered_extensions()
    decoded = Image.OPEN.keys() - _NOT_PIXELS | {"MPO"}  # a JPEG with further images, which the reader of JPEGs opens
    return frozenset(end for end, kind in known.items() if kind in decoded)


def decode(path: Path | Encoded) -> Image.Image:
    """A fully decoded, upright RGB image; of an animation, its first frame.

    Raises:
        DataInvalid: the file cannot be decoded, has 32-bit pixels, or has more than `MAX_PIXELS`; the message names it.
    """
    try:
        with Image.open(path) as image:
            _check(path, image)
            return _rgb(_upright(image))
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise DataInvalid(f"image {str(path)!r} cannot be decoded: {_reason(error)}") from error


def check(path: Path | Encoded) -> None:
    """Read an image to its end, as `decode` would; JPEGs at an eighth of their size, so in a 64th of the memory.

    Raises:
        DataInvalid: as `decode`.
    """
    try:
        with Image.open(path) as image:
            _check(path, image)
            image.draft(None, (1, 1))
            _rgb(_upright(image))
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise DataInvalid(f"image {str(path)!r} cannot be decoded: {_reason(error)}") from error


def _check(path: Path | Encoded, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width:,} × {image.height:,}"
        raise DataInvalid(f"image {str(path)!r} has {size} pixels; accepted are images of up to {MAX_PIXELS:,} pixels in all")
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise DataInvalid(f"image {str(path)!r} has 32-bit pixels; accepted are images of 8 or 16 bits per channel")


def _upright(image: Image.Image) -> Image.Image:
    """The image turned by its EXIF orientation; as stored where it has none that can be read.

    Not Pillow's `exif_transpose`, which also rewrites the metadata and fails on files whose other tags are damaged.
    """
    image.load()  # first, since Pillow turns a TIFF by itself and then forgets its orientation
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except _UNREADABLE:
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16 bits, in whichever mode Pillow reads them: its own conversion clips
        return Image.fromarray((np.asarray(image).astype(np.uint16) // 257).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _reason(error: Exception) -> str:
    return "it is no image that Pillow can read" if isinstance(error, UnidentifiedImageError) else str(error)
