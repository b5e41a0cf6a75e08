"""Random changes of training images: what each kind may do, and what it leaves alone."""

import math

import numpy as np
import pytest
import torch

from glora_core.data.augment import JITTER, SLANT, TURN, augment


@pytest.fixture
def images():
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def changed(images, *kinds, seed=0, **rest):
    return augment(images, kinds, np.random.default_rng(seed), **rest)


def test_no_kind_changes_nothing(images):
    assert torch.equal(changed(images), images)


@pytest.mark.parametrize("kind", ["crop", "affine", "flip", "colour"])
def test_equal_generators_change_alike_and_others_otherwise(images, kind):
    assert torch.equal(changed(images, kind), changed(images, kind))
    assert not torch.equal(changed(images, kind), changed(images, kind, seed=1))
    assert changed(images, kind).shape == images.shape


def test_a_flip_leaves_an_image_or_mirrors_it(images):
    found = changed(images, "flip")
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(found, images, strict=True)]
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(found, images, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)


def test_a_crop_shows_part_of_the_image_and_never_anything_outside():
    ramp = torch.linspace(0, 1, 32).expand(64, 1, 32, 32).contiguous()
    found = changed(ramp, "crop")
    spans = (found.amax((1, 2, 3)) - found.amin((1, 2, 3))).tolist()
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    assert bool((found[:, :, :, 1:] >= found[:, :, :, :-1] - 1e-6).all())
    assert min(spans) > 0.5
    assert max(spans) > 0.9
    assert len({round(span, 3) for span in spans}) > 30


LINE = torch.linspace(-1, 1, 33)


@pytest.fixture
def ramps():
    """Two ramps: where a picture is as bright as its column or row says, its values tell where they were read."""
    return torch.stack([LINE.expand(33, 33), LINE.view(-1, 1).expand(33, 33)]).expand(64, 2, 33, 33).contiguous()


def test_crop_and_affine_show_the_part_that_a_crop_shows_of_the_turned_image(ramps):
    cropped, turned, both = (changed(ramps, *kinds) for kinds in (("crop",), ("affine",), ("crop", "affine")))
    matrix = torch.stack([turned[:, :, 16, 20], turned[:, :, 20, 16]], 2) / LINE[20]
    expected = (matrix @ cropped.flatten(2)).view_as(cropped)
    inside = torch.maximum(expected.abs(), cropped.abs()).amax(1, keepdim=True).expand_as(both) < 0.9  # at the border images are mirrored
    assert inside.float().mean() > 0.5
    assert torch.allclose(both[inside], expected[inside], atol=1e-4)


def test_affine_turns_and_slants_about_the_middle_within_its_bounds(ramps):
    found = changed(ramps, "affine")
    middle, right, below = found[:, :, 16, 16], found[:, :, 16, 20], found[:, :, 20, 16]
    assert torch.allclose(middle, torch.zeros(64, 2), atol=1e-5)
    turns = torch.atan2(right[:, 1], right[:, 0])
    slants = (below[:, 0] + right[:, 1]) / LINE[20]
    assert turns.abs().max() <= math.radians(TURN) + 1e-4
    assert slants.abs().max() <= SLANT + 1e-4
    assert turns.min() < -math.radians(TURN) / 2 < math.radians(TURN) / 2 < turns.max()
    assert slants.min() < -SLANT / 2 < SLANT / 2 < slants.max()


def test_affine_turns_as_many_images_as_it_should_and_leaves_the_others_as_they_are(ramps):
    whole, some = changed(ramps, "affine"), changed(ramps, "affine", turned=0.25)
    alike, left = ((some - other).abs().amax((1, 2, 3)) < 1e-5 for other in (whole, ramps))
    assert bool((alike ^ left).all())
    assert 8 <= int(alike.sum()) <= 24
    assert torch.allclose(changed(ramps, "affine", turned=0.0), ramps, atol=1e-5)


def test_colour_changes_contrast_and_brightness_within_its_bounds(images):
    found = changed(images, "colour")
    for before, after in zip(images.flatten(1), found.flatten(1), strict=True):
        scale = ((after[0] - after[1]) / (before[0] - before[1])).item()
        shift = (after - before * scale).mean().item()
        assert abs(scale - 1) <= JITTER + 1e-4
        assert abs(shift) <= JITTER + 1e-4
        assert torch.allclose(after, before * scale + shift, atol=1e-3)


def test_rows_of_a_larger_batch_are_changed_as_they_are_there(images):
    whole = changed(images, "crop", "affine", "flip", "colour")
    for rank in range(2):
        part = changed(images[rank::2], "crop", "affine", "flip", "colour", rows=slice(rank, None, 2), count=6)
        assert torch.allclose(part, whole[rank::2], atol=1e-6)
