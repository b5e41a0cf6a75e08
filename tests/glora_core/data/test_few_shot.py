"""Few-shot subsets: balanced, seeded, nested, and reported where a class has too few images."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glora_core.data.few_shot import few_shot
from glora_core.data.labelled import Example, ImageFolder
from glora_core.errors import ConfigInvalid


def folder(sizes: tuple[int, ...] = (20, 3, 30)) -> ImageFolder:
    """A data set of classes of so many training images, mixed in order, and one image each for val and test."""
    train = [Example(f"train/{label}/{number}", label) for label, size in enumerate(sizes) for number in range(size)]
    splits = {"train": tuple(sorted(train, key=lambda e: e.path[-1]))}
    splits |= {split: tuple(Example(f"{split}/{label}", label) for label in range(len(sizes))) for split in ("val", "test")}
    hashes = {example.path: example.path for examples in splits.values() for example in examples}
    return ImageFolder(Path("/data"), tuple("abcdef"[: len(sizes)]), splits, hashes)


@given(st.lists(st.integers(1, 12), min_size=2, max_size=6), st.integers(1, 16), st.integers(0, 2**63 - 1))
def test_every_class_keeps_so_many_images_or_all_it_has(sizes, shots, seed):
    found = few_shot(folder(tuple(sizes)), shots, seed)
    assert Counter(example.label for example in found.splits["train"]) == {label: min(shots, size) for label, size in enumerate(sizes)}
    assert len(set(found.splits["train"])) == len(found.splits["train"])


def test_val_and_test_stay_as_they_are_and_train_in_its_order():
    data = folder()
    found = few_shot(data, 4, 0)
    assert (found.splits["val"], found.splits["test"]) == (data.splits["val"], data.splits["test"])
    assert [e for e in data.splits["train"] if e in found.splits["train"]] == list(found.splits["train"])
    assert found.examples("train+val") == found.splits["train"] + found.splits["val"]


def test_the_same_seed_draws_the_same_images_and_another_one_others():
    assert few_shot(folder(), 4, 1).fingerprint == few_shot(folder(), 4, 1).fingerprint
    assert len({few_shot(folder(), 4, seed).fingerprint for seed in range(5)} | {folder().fingerprint}) == 6


@pytest.mark.parametrize(("fewer", "more"), [(1, 2), (2, 4), (4, 8), (8, 16)])
def test_the_images_of_fewer_shots_are_among_those_of_more(fewer, more):
    assert set(few_shot(folder(), fewer, 7).splits["train"]) < set(few_shot(folder(), more, 7).splits["train"])


def test_as_many_shots_as_there_are_images_is_the_whole_data_set():
    assert few_shot(folder((3, 3)), 3, 9) == folder((3, 3))


def test_a_class_of_fewer_images_is_reported():
    assert few_shot(folder(), 4, 0).warnings == ("1 of 3 classes have fewer than 4 images in train and keep them all: b",)


@pytest.mark.parametrize(("shots", "seed"), [(0, 0), (-1, 0), (2.5, 0), (True, 0), (1, -1), (1, 0.5)], ids=str)
def test_no_whole_number_of_shots_or_seed_is_refused_by_its_name(shots, seed):
    with pytest.raises(ConfigInvalid, match=r"(shots|seed) is .*; accepted are integers of at least"):
        few_shot(folder(), shots, seed)
