"""Splits as tensors: the very floats that timm's own evaluation transform gives."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from timm.data import create_transform

from glora_core.backbones import Transform
from glora_core.data.folders import scan
from glora_core.data.images import ImageSplit, load_split
from glora_core.data.labelled import ImageFolder
from glora_core.errors import DataInvalid

SIZES = ((12, 10), (10, 31), (8, 8), (64, 48))


def transform_of(crop_mode: str = "center", interpolation: str = "bicubic", mean: tuple[float, ...] = (0.5, 0.4, 0.3)) -> Transform:
    return Transform((3, 8, 8), interpolation, mean, (0.2, 0.25, 0.3), 0.9, crop_mode)


def by_timm(data: ImageFolder, split: str, transform: Transform) -> torch.Tensor:
    """The images of a split by timm's full evaluation transform, normalisation included."""
    full = create_transform(
        input_size=transform.input_size,
        interpolation=transform.interpolation,
        mean=transform.mean,
        std=transform.std,
        crop_pct=transform.crop_pct,
        crop_mode=transform.crop_mode,
    )
    return torch.stack([full(Image.open(data.root / example.path).convert("RGB")) for example in data.splits[split]])


@pytest.fixture
def data_of_mode(image_folder: Callable[..., Path], write_image: Callable[..., Path]) -> Callable[..., ImageFolder]:
    """A factory of folders whose images have one PIL mode and several sizes."""

    def make(mode: str) -> ImageFolder:
        root = image_folder(images=len(SIZES))
        for seed, path in enumerate(sorted(root.rglob("*.png"))):
            write_image(path, seed, SIZES[seed % len(SIZES)], mode)
        return scan(root)

    return make


def loaded(split: ImageSplit, size: int = 3) -> torch.Tensor:
    return torch.cat([images for images, _ in split.batches(size)])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "LA", "1"])
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_loaded_images_are_bit_for_bit_those_of_timms_evaluation_transform(data_of_mode, mode, crop_mode):
    data, transform = data_of_mode(mode), transform_of(crop_mode)
    assert torch.equal(loaded(load_split(data, "val", transform)), by_timm(data, "val", transform))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_the_interpolation_is_the_transforms_own(data_of_mode, interpolation):
    data, transform = data_of_mode("RGB"), transform_of(interpolation=interpolation)
    assert torch.equal(loaded(load_split(data, "train", transform)), by_timm(data, "train", transform))


def test_borders_are_filled_with_the_transforms_own_mean(data_of_mode):
    data, transform = data_of_mode("RGB"), transform_of("border")
    assert torch.equal(loaded(load_split(data, "val", transform)), by_timm(data, "val", transform))


def test_labels_are_those_of_the_folder_in_its_order(data_of_mode):
    data = data_of_mode("RGB")
    split = load_split(data, "train", transform_of())
    assert split.labels.tolist() == [example.label for example in data.splits["train"]]
    assert (split.labels.dtype, split.pixels.dtype, split.pixels.shape) == (torch.int64, torch.uint8, (8, 3, 8, 8))


def test_an_image_that_vanished_after_the_scan_is_refused_by_its_path(data_of_mode):
    data = data_of_mode("RGB")
    (data.root / "val" / "dog" / "0.png").unlink()
    with pytest.raises(DataInvalid, match=r"val/dog/0\.png"):
        load_split(data, "val", transform_of())


@pytest.mark.parametrize("size", [1, 7, 30, 99])
def test_batches_give_every_example_once_in_order(toy_split, size):
    batches = list(toy_split.batches(size))
    assert torch.equal(torch.cat([labels for _, labels in batches]), toy_split.labels)
    assert torch.equal(torch.cat([images for images, _ in batches]), toy_split.take(torch.arange(30))[0])
    assert all(len(labels) == size for _, labels in batches[:-1])


def test_rows_are_taken_by_index_in_any_order(toy_split):
    rows = torch.tensor([4, 0, 4])
    images, labels = toy_split.take(rows)
    whole, _ = toy_split.take(torch.arange(30))
    assert torch.equal(images, whole[rows])
    assert torch.equal(labels, toy_split.labels[rows])


def test_taking_rows_leaves_the_pixels_as_they_were(toy_split):
    before = toy_split.pixels.clone()
    toy_split.take(torch.arange(30))
    list(toy_split.batches(30))
    assert torch.equal(toy_split.pixels, before)


def test_a_split_on_another_device_keeps_its_contents(toy_split):
    moved = toy_split.to(torch.device("cpu"))
    assert torch.equal(moved.take(torch.arange(30))[0], toy_split.take(torch.arange(30))[0])
    assert (len(moved), moved.mean, moved.std) == (30, toy_split.mean, toy_split.std)
