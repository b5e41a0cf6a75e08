"""The script that checks a checkpoint with plain timm sees the images that a job saw."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.check_checkpoint import found, upright
from glora_core.data.decoding import decode
from glora_core.data.folders import class_folders


@pytest.mark.parametrize("name", ["gray.png", "gray.tif", "big-endian.tif"])
def test_images_of_16_bits_are_scaled_as_a_job_scales_them(tmp_path: Path, name: str) -> None:
    pixels = np.arange(0, 65536, 64).reshape(32, 32)
    Image.fromarray(pixels.astype(">u2" if "big" in name else "<u2")).save(tmp_path / name)
    assert np.array_equal(np.asarray(upright(tmp_path / name)), np.asarray(decode(tmp_path / name)))


def test_images_are_those_of_a_job_whatever_else_lies_beside_them(tmp_path: Path) -> None:
    for name in ("a/0.png", "a/deep/er/1.JPG", "a/Thumbs.db", "a/.hidden.png", ".cache/0.png", "b/0.jfif", "b/chart.eps", "loose.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = [path for paths in class_folders(tmp_path)[0].values() for path in paths]
    assert len(expected) == 3 and found(tmp_path) == expected
