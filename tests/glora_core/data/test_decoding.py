"""Image files of every kind: upright, over white, scaled and not clipped, or refused by name."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from glora_core.data import decoding
from glora_core.data.decoding import check, decode
from glora_core.errors import DataInvalid

RED = (255, 0, 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA", "I;16"])
def test_images_of_any_mode_decode_to_rgb(tmp_path, mode):
    Image.new("L" if mode == "I;16" else "RGB", (5, 4), 7).convert("I;16" if mode == "I;16" else mode).save(tmp_path / "image.png")
    image = decode(tmp_path / "image.png")
    assert (image.mode, image.size) == ("RGB", (5, 4))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "image"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"])
@settings(max_examples=40)
@given(damage=st.dictionaries(st.integers(0, 120), st.integers(0, 255), max_size=3), kept=st.floats(0.1, 1))
def test_a_damaged_image_is_decoded_or_refused_but_never_crashes(scratch, kind, damage, kept):
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((12, 10)).convert("P" if kind == "GIF" else "RGB").save(buffer, kind)
    content = bytearray(buffer.getvalue()[: int(kept * len(buffer.getvalue()))])
    for position, value in damage.items():
        if position < len(content):
            content[position] = value
    scratch.write_bytes(content)
    for read in (decode, check):
        try:
            assert read(scratch) is None or decode(scratch).mode == "RGB"
        except DataInvalid as refusal:
            assert str(scratch) in str(refusal)


def test_a_sixteen_bit_image_is_scaled_and_not_clipped(tmp_path):
    eight = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(eight.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(np.asarray(decode(tmp_path / "deep.png"))[..., 0], eight)


def test_an_image_of_floats_is_refused_by_its_name(tmp_path):
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DataInvalid, match=r"float\.tiff"):
        decode(tmp_path / "float.tiff")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
def test_an_image_is_turned_by_its_exif_orientation(tmp_path, kind, orientation):
    path = tmp_path / f"photo.{kind}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.radial_gradient("L").resize((12, 10)).crop((0, 0, 9, 10)).convert("RGB").save(path, exif=exif)
    assert np.array_equal(np.asarray(decode(path)), np.asarray(ImageOps.exif_transpose(Image.open(path))))
    assert decode(path).size == ((9, 10) if orientation < 5 else (10, 9))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_image_with_damaged_exif_is_read_as_it_is_stored(tmp_path):
    Image.new("RGB", (5, 4), RED).save(tmp_path / "photo.png", exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff")
    assert decode(tmp_path / "photo.png").size == (5, 4)


def test_a_sixteen_bit_image_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([[0, 65535], [0, 0], [0, 0]], dtype=np.uint16)).save(tmp_path / "deep.png", exif=exif)
    assert np.asarray(decode(tmp_path / "deep.png"))[..., 0].tolist() == [[0, 0, 0], [0, 0, 255]]


def palette() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([9, 9, 9, *RED])
    image.putdata([0, 1])
    image.info["transparency"] = 0
    return image


def half_clear(mode: str) -> Image.Image:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255)).convert(mode)
    image.putpixel((0, 0), (0,) * len(mode))
    return image


@pytest.mark.parametrize("image", [palette(), half_clear("RGBA"), half_clear("LA")], ids=["P", "RGBA", "LA"])
def test_what_is_transparent_is_white(tmp_path, image):
    image.save(tmp_path / "clear.png")
    found = decode(tmp_path / "clear.png")
    assert found.getpixel((0, 0)) == (255, 255, 255)
    assert found.getpixel((1, 0)) == (RED if image.mode != "LA" else (76, 76, 76))


def test_what_is_half_transparent_is_mixed_with_white(tmp_path):
    Image.new("RGBA", (1, 1), (255, 0, 0, 128)).save(tmp_path / "half.png")
    assert decode(tmp_path / "half.png").getpixel((0, 0)) == (255, 127, 127)


def test_inks_become_colours(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    red, green, blue = decode(tmp_path / "print.jpg").getpixel((4, 4))
    assert red > 240 and green < 15 and blue < 15


def test_a_sixteen_bit_portable_graymap_is_scaled_and_not_clipped(tmp_path):
    (tmp_path / "deep.pgm").write_bytes(b"P5 2 1 65535\n" + bytes([0x80, 0x00, 0xFF, 0xFF]))
    assert np.asarray(decode(tmp_path / "deep.pgm"))[..., 0].tolist() == [[127, 255]]


def test_an_image_of_whole_32_bit_numbers_is_refused_by_its_name(tmp_path):
    Image.fromarray(np.ones((4, 4), dtype=np.int32)).save(tmp_path / "counts.tiff")
    with pytest.raises(DataInvalid, match=r"counts\.tiff.*32-bit pixels; accepted are"):
        decode(tmp_path / "counts.tiff")


@pytest.mark.parametrize("read", [decode, check])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch, read):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 19)
    Image.new("RGB", (5, 4)).save(tmp_path / "huge.png")
    with pytest.raises(DataInvalid, match=r"huge\.png.*5 × 4 pixels; accepted are images of up to 19"):
        read(tmp_path / "huge.png")


def test_a_decompression_bomb_is_refused_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    Image.new("RGB", (5, 4)).save(tmp_path / "bomb.png")
    with pytest.raises(DataInvalid, match=r"bomb\.png"):
        decode(tmp_path / "bomb.png")


@pytest.mark.parametrize("read", [decode, check])
@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "tiff", "webp"])
def test_a_truncated_image_is_refused_by_its_path(tmp_path, kind, read):
    path = tmp_path / f"cut.{kind}"
    Image.effect_noise((64, 64), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(DataInvalid, match=rf"cut\.{kind}.*cannot be decoded"):
        read(path)
