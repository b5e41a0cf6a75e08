"""Further test sets: the same classes or some of them, hashed, and compared with what was trained on."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from glora_core.data.folders import scan
from glora_core.data.labelled import Example, ImageFolder
from glora_core.data.shifted import facts_of_test, halves, present, scan_test
from glora_core.errors import DataInvalid


@pytest.fixture
def data(image_folder: Callable[..., Path]) -> ImageFolder:
    return scan(image_folder(splits={"train": ("a", "b", "c"), "val": ("a", "b", "c")}))


@pytest.fixture
def sketch(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Two images of class c and one of a, of other seeds than the data's."""
    for seed, name in enumerate(("c/0.png", "c/1.png", "a/0.png"), 100):
        write_image(tmp_path / "sketch" / name, seed)
    (tmp_path / "sketch" / "empty").mkdir()
    return tmp_path / "sketch"


def test_labels_are_those_of_the_data_sets_classes(data, sketch):
    found = scan_test(sketch, data)
    assert found.splits == {"test": (Example("a/0.png", 0), Example("c/0.png", 2), Example("c/1.png", 2))}
    assert present(found) == (0, 2)


def test_facts_name_sizes_fingerprint_and_no_warning_where_nothing_is_shared(data, sketch):
    found = scan_test(sketch, data)
    assert facts_of_test("sketch", found, data) == {
        "path": str(sketch),
        "fingerprint": found.fingerprint,
        "images": 3,
        "parts": None,
        "classes": 2,
        "warnings": [],
    }


def test_hidden_folders_are_no_classes_and_files_that_are_no_images_are_told(data, sketch, write_image):
    write_image(sketch / ".ipynb_checkpoints" / "0.png")
    (sketch / "a" / "list.txt").touch()
    found = scan_test(sketch, data)
    assert len(found.splits["test"]) == 3
    assert facts_of_test("sketch", found, data)["warnings"] == ["1 file of sketch passed over, by the ends of their names: 1 .txt"]


def test_images_that_were_trained_on_are_told(data, sketch):
    shutil.copyfile(data.root / "train" / "b" / "0.png", sketch / "a" / "seen.png")
    (told,) = facts_of_test("sketch", scan_test(sketch, data), data)["warnings"]
    assert told == "1 sketch image is in train too, byte for byte, such as 'a/seen.png'"


def test_fingerprint_changes_with_an_image(data, sketch):
    before = scan_test(sketch, data).fingerprint
    shutil.copyfile(sketch / "a" / "0.png", sketch / "c" / "0.png")
    assert scan_test(sketch, data).fingerprint != before


def test_a_class_that_the_data_lacks_is_refused_by_name(data, sketch, write_image):
    write_image(sketch / "zebra" / "0.png")
    with pytest.raises(DataInvalid, match=r"sketch' has classes that the data set lacks: zebra; its classes are a, b, c"):
        scan_test(sketch, data)


def test_a_folder_of_one_class_is_refused(data, sketch):
    shutil.rmtree(sketch / "a")
    with pytest.raises(DataInvalid, match=r"images of 1 class.*two at least"):
        scan_test(sketch, data)


def test_a_missing_folder_and_a_damaged_image_are_refused_by_path(data, sketch):
    with pytest.raises(DataInvalid, match=r"nowhere.*does not exist"):
        scan_test(sketch / "nowhere", data)
    (sketch / "a" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataInvalid, match=r"a/0\.png.*cannot be decoded"):
        scan_test(sketch, data)


def test_halves_have_every_class_and_keep_equal_images_together(data, tmp_path, write_image):
    for name in ("a", "b"):
        for seed in range(6):
            write_image(tmp_path / "set" / name / f"{seed}.png", 10 * ord(name) + seed)
        shutil.copy(tmp_path / "set" / name / "0.png", tmp_path / "set" / name / "copy.png")
    whole = scan_test(tmp_path / "set", data)

    selection, report = halves(whole)

    assert sorted(map(str, (*selection.splits["test"], *report.splits["test"]))) == sorted(map(str, whole.splits["test"]))
    hashes = [{part.contents(example) for example in part.splits["test"]} for part in (selection, report)]
    assert hashes[0].isdisjoint(hashes[1]) and [len(found) for found in hashes] == [6, 6]
    assert present(selection) == present(report) == (0, 1)
    assert halves(scan_test(tmp_path / "set", data)) == (selection, report)


def test_a_set_too_small_for_two_parts_is_refused_and_its_facts_have_none(data, sketch):
    found = scan_test(sketch, data)
    with pytest.raises(DataInvalid, match="cannot be split in two"):
        halves(found)
    assert facts_of_test("sketch", found, data)["parts"] is None
