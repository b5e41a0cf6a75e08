"""Folders of images: both layouts, every refusal by name, and the fingerprint."""

import hashlib
import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from glora_core.data import folders, lists
from glora_core.data.folders import scan
from glora_core.data.labelled import Example
from glora_core.errors import DataInvalid


def test_class_folders_are_read_with_sorted_classes_and_relative_paths(image_folder):
    root = image_folder(splits={"train": ("dog", "cat"), "val": ("cat", "dog"), "test": ("dog",)}, images=1)
    data = scan(root)
    assert data.root == root
    assert data.classes == ("cat", "dog")
    assert data.splits == {
        "train": (Example("train/cat/0.png", 0), Example("train/dog/0.png", 1)),
        "val": (Example("val/cat/0.png", 0), Example("val/dog/0.png", 1)),
        "test": (Example("test/dog/0.png", 1),),
    }


def test_a_test_split_may_be_absent(image_folder):
    assert set(scan(image_folder(splits={"train": ("a", "b"), "val": ("a", "b")})).splits) == {"train", "val"}


def test_a_class_of_train_may_be_absent_from_val_with_a_warning(image_folder):
    data = scan(image_folder(splits={"train": ("a", "b", "c"), "val": ("c",)}))
    assert {example.label for example in data.splits["val"]} == {2}
    assert data.counts == {"train": (2, 2, 2), "val": (0, 0, 2)}
    assert data.warnings == ("val has no images of 2 of 3 classes: a, b",)


def test_images_that_two_splits_share_are_counted_with_their_paths(image_folder):
    root = image_folder()
    for copy in ("val/cat/copy.png", "val/dog/copy.png", "test/cat/copy.png"):
        shutil.copyfile(root / "train" / "cat" / "0.png", root / copy)
    first, second, third = scan(root).duplicates
    assert (first.splits, first.count) == (("train", "val"), 2)
    assert first.examples == (("train/cat/0.png", "val/cat/copy.png"), ("train/cat/0.png", "val/dog/copy.png"))
    assert (second.splits, second.count) == (("train", "test"), 1)
    assert (third.splits, third.examples) == (("val", "test"), (("val/cat/copy.png", "test/cat/copy.png"),))
    assert "2 val images are in train too, byte for byte, such as 'val/cat/copy.png'" in scan(root).warnings[0]


def test_equal_images_within_one_split_are_no_duplicates(image_folder):
    root = image_folder()
    shutil.copyfile(root / "train" / "cat" / "0.png", root / "train" / "cat" / "copy.png")
    assert (scan(root).duplicates, scan(root).warnings) == ((), ())


def test_an_image_that_a_list_names_twice_is_read_once(list_folder, monkeypatch):
    read = []
    monkeypatch.setattr(folders, "check", read.append)
    scan(list_folder(train800="images/0.png 0\nimages/1.png 1\nimages/0.png 0\n", val200="images/0.png 0\n"))
    assert sorted(path.name for path in read) == ["0.png", "1.png"]


def test_facts_are_plain_json_values(image_folder):
    root = image_folder(splits={"train": ("a", "b"), "val": ("a",)}, images=1)
    shutil.copyfile(root / "train" / "a" / "0.png", root / "val" / "a" / "0.png")
    facts = scan(root).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["counts"] == {"train": [1, 1], "val": [1, 0]}
    assert facts["duplicates"] == [{"splits": ["train", "val"], "images": 1, "examples": [["train/a/0.png", "val/a/0.png"]]}]
    assert len(facts["warnings"]) == 2


def test_other_files_and_hidden_images_are_passed_over(image_folder, write_image):
    root = image_folder()
    expected = scan(root)
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"not an image")
    (root / "train" / "empty").mkdir()
    (root / "train" / "cat" / "folder.png").mkdir()
    for place in ("train/.ipynb_checkpoints", "val/.cache", "train/cat/.thumbnails/deep"):
        write_image(root / place / "0.png")
    assert replace(scan(root), notes=()) == expected


def test_files_that_are_no_images_by_their_names_are_counted_in_a_warning(image_folder):
    root = image_folder()
    for name in ("cat/a.txt", "dog/b.TXT", "dog/Thumbs.db", "other/README"):
        (root / "train" / name).parent.mkdir(exist_ok=True)
        (root / "train" / name).touch()
    assert scan(root).warnings == ("4 files of train passed over, by the ends of their names: 2 .txt, 1 .db, 1 without one",)


@pytest.mark.parametrize(
    "name", ["0.jfif", "0.jp2", "0.jpe", "0.pnm", "0.MPO", "deep/er/0.png", "UPPER.PNG", "photo.jpeg", "with space.bmp", "é.webp"]
)
def test_images_of_many_names_and_formats_are_found(image_folder, write_image, name):
    root = image_folder()
    write_image(root / "train" / "cat" / name)
    assert f"train/cat/{name}" in {example.path for example in scan(root).splits["train"]}


def test_lists_are_read_in_their_order_with_labels_as_class_names(list_folder):
    data = scan(list_folder(train800="images/1.png 1\nimages/0.png 0\n", val200="images/2.png 0\n", test="images/3.png 1\n"))
    assert data.classes == ("0", "1")
    assert data.splits == {
        "train": (Example("images/1.png", 1), Example("images/0.png", 0)),
        "val": (Example("images/2.png", 0),),
        "test": (Example("images/3.png", 1),),
    }


def test_lists_may_have_blank_lines_windows_endings_and_paths_with_spaces(list_folder, write_image):
    root = list_folder(train800="images/0.png 0\r\n\r\n\nimages/my cat.png 1\r\n")
    write_image(root / "images" / "my cat.png", 9)
    assert scan(root).splits["train"] == (Example("images/0.png", 0), Example("images/my cat.png", 1))


def test_a_missing_folder_is_refused_by_its_path(tmp_path):
    with pytest.raises(DataInvalid, match=r"nowhere.*does not exist"):
        scan(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataInvalid, match="not a folder"):
        scan(tmp_path / "file")


def test_an_empty_folder_is_refused_with_the_accepted_layouts(tmp_path):
    with pytest.raises(DataInvalid, match=r"neither train/ nor train800\.txt; accepted are train/, val/.*VTAB-1K"):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("split", "splits"),
    [("val", {"train": ("a", "b")}), ("train", {"val": ("a", "b")})],
)
def test_a_missing_split_is_refused_by_its_name(image_folder, split, splits):
    root = image_folder(splits=splits)
    (root / "train").mkdir(exist_ok=True)
    with pytest.raises(DataInvalid, match=split):
        scan(root)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_images_is_refused_by_its_name(image_folder, split):
    root = image_folder()
    for image in (root / split).rglob("*.png"):
        image.unlink()
    with pytest.raises(DataInvalid, match=f"{split}.*no images|no counterpart with images in {split}"):
        scan(root)


def test_images_without_class_folders_are_refused(image_folder, write_image):
    root = image_folder(splits={"val": ("a", "b")})
    write_image(root / "train" / "0.png")
    with pytest.raises(DataInvalid):
        scan(root)


def test_a_single_class_is_refused_by_its_name(image_folder):
    with pytest.raises(DataInvalid, match=r"one class only \(cat\)"):
        scan(image_folder(splits={"train": ("cat",), "val": ("cat",)}))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_train_lacks_is_refused_by_its_folder(image_folder, split):
    splits = {"train": ("a", "b"), "val": ("a", "b"), "test": ("a", "b")}
    with pytest.raises(DataInvalid, match=f"{split}/c.*classes are a, b"):
        scan(image_folder(splits=splits | {split: ("a", "c")}))


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("content", [b"", b"not an image", "truncated"], ids=["empty", "text", "truncated"])
def test_a_corrupt_image_is_refused_by_its_path(image_folder, split, content):
    root = image_folder()
    path = root / split / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:-40] if content == "truncated" else content)
    with pytest.raises(DataInvalid, match=f"{split}/dog/1.png.*cannot be decoded"):
        scan(root)


@pytest.mark.parametrize(
    "line", ["images/0.png", "0", "images/0.png cat", "images/0.png -1", "images/0.png 1.0", "images/0.png\t0", "images/0.png 0 x"]
)
def test_a_malformed_line_is_refused_by_its_number(list_folder, line):
    with pytest.raises(DataInvalid, match=r"train800\.txt line 2: .*a path and a class index"):
        scan(list_folder(train800=f"images/0.png 0\n{line}\nimages/1.png 1\n"))


def test_a_label_in_superscript_is_refused_by_its_line(list_folder):
    with pytest.raises(DataInvalid, match="line 1"):
        scan(list_folder(train800="images/0.png \u00b2\n"))


def test_a_list_that_is_not_text_is_refused_by_its_name(list_folder):
    root = list_folder()
    (root / "val200.txt").write_bytes(b"images/2.png 0\n\xff\xfe\n")
    with pytest.raises(DataInvalid, match=r"val200\.txt"):
        scan(root)


@pytest.mark.parametrize("path", ["../outside.png", "images/../../outside.png", "{tmp}/outside.png", "link.png"])
def test_a_path_that_leaves_the_folder_is_refused_by_its_line(list_folder, write_image, tmp_path, path):
    write_image(tmp_path / "outside.png")
    root = list_folder(val200=f"images/2.png 0\n{path.format(tmp=tmp_path)} 1\n")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(DataInvalid, match=r"val200\.txt line 2: .*inside the data folder"):
        scan(root)


def test_an_image_that_a_list_names_in_vain_is_refused_by_its_line(list_folder):
    with pytest.raises(DataInvalid, match=r"val200\.txt line 1: image 'images/9\.png' does not exist"):
        scan(list_folder(val200="images/9.png 0\n"))


def test_a_label_that_the_training_list_lacks_is_refused(list_folder):
    with pytest.raises(DataInvalid, match=r"val200\.txt has labels \[5\] that train800\.txt lacks"):
        scan(list_folder(val200="images/2.png 5\n"))


def test_a_missing_validation_list_is_refused(list_folder):
    root = list_folder()
    (root / "val200.txt").unlink()
    with pytest.raises(DataInvalid, match="'val'"):
        scan(root)


@pytest.mark.parametrize("name", ["train800", "val200", "test"])
def test_an_empty_list_is_refused(list_folder, name):
    with pytest.raises(DataInvalid):
        scan(list_folder(**{name: "\n"}))


def test_lists_of_one_class_are_refused(list_folder):
    with pytest.raises(DataInvalid, match="one class only"):
        scan(list_folder(train800="images/0.png 0\n", val200="images/1.png 0\n"))


def test_a_fingerprint_is_stable_over_scans_and_places(image_folder, tmp_path):
    root = image_folder()
    shutil.copytree(root, tmp_path / "elsewhere")
    assert scan(root).fingerprint == scan(root).fingerprint == scan(tmp_path / "elsewhere").fingerprint
    assert len(scan(root).fingerprint) == 64


@pytest.mark.parametrize("seed", range(3))
def test_a_fingerprint_does_not_depend_on_the_order_in_which_files_were_written(image_folder, tmp_path, seed):
    root = image_folder()
    files = [path.relative_to(root) for path in root.rglob("*.png")]
    for file in random.Random(seed).sample(files, len(files)):
        (tmp_path / "copy" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / file, tmp_path / "copy" / file)
        os.utime(tmp_path / "copy" / file, (seed, seed))
    assert scan(tmp_path / "copy").fingerprint == scan(root).fingerprint


def change_byte(root: Path) -> None:
    path = root / "test" / "dog" / "0.png"
    path.write_bytes(path.read_bytes() + b"\0")


def change_label(root: Path) -> None:
    (root / "train" / "dog" / "1.png").rename(root / "train" / "cat" / "2.png")


def change_split(root: Path) -> None:
    (root / "test" / "dog" / "1.png").rename(root / "val" / "dog" / "2.png")


def change_name(root: Path) -> None:
    (root / "val" / "dog" / "1.png").rename(root / "val" / "dog" / "7.png")


def change_class_name(root: Path) -> None:
    for split in ("train", "val", "test"):
        (root / split / "dog").rename(root / split / "wolf")


def drop_image(root: Path) -> None:
    (root / "train" / "cat" / "0.png").unlink()


def swap_contents(root: Path) -> None:
    first, second = root / "train" / "cat" / "0.png", root / "train" / "dog" / "0.png"
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)


@pytest.mark.parametrize(
    "change", [change_byte, change_label, change_split, change_name, change_class_name, drop_image, swap_contents], ids=lambda f: f.__name__
)
def test_a_fingerprint_changes_with_any_change_of_the_data(image_folder, change):
    root = image_folder()
    before = scan(root).fingerprint
    change(root)
    assert scan(root).fingerprint != before


@pytest.mark.parametrize(
    "lists",
    [{"train800": "images/1.png 1\nimages/0.png 0\n"}, {"train800": "images/0.png 1\nimages/1.png 0\n"}, {"test": "images/0.png 0\n"}],
)
def test_a_fingerprint_changes_with_any_change_of_the_lists(list_folder, lists):
    assert scan(list_folder("changed", **lists)).fingerprint != scan(list_folder("original")).fingerprint


def test_a_hash_is_that_of_a_files_bytes(image_folder):
    root = image_folder(images=1)
    assert scan(root).hashes["train/cat/0.png"] == hashlib.sha256((root / "train" / "cat" / "0.png").read_bytes()).hexdigest()


def test_an_image_file_of_more_than_the_bound_is_refused_before_it_is_read(image_folder, monkeypatch):
    root = image_folder()
    os.truncate(root / "val" / "dog" / "1.png", folders.LARGEST_IMAGE + 1)
    monkeypatch.setattr(folders, "check", lambda path: None)
    with pytest.raises(DataInvalid, match=r"val/dog/1\.png' has 268,435,457 bytes; accepted are files of up to 268,435,456"):
        scan(root)


def test_a_list_of_more_than_the_bound_is_refused(list_folder):
    root = list_folder()
    os.truncate(root / "val200.txt", lists.LARGEST_LIST + 1)
    with pytest.raises(DataInvalid, match=r"val200\.txt has 67,108,865 bytes; accepted are lists of up to 67,108,864"):
        scan(root)


@pytest.mark.parametrize("line", ["x" * 500, "images/0.png \x1b[2J" + "x" * 500, "x" * 500 + ".png 0"])
def test_a_line_that_names_no_image_is_told_in_short_and_printable(list_folder, line):
    with pytest.raises(DataInvalid, match=r"train800\.txt line 1") as refusal:
        scan(list_folder(train800=f"{line}\n"))
    assert "x" * 100 not in str(refusal.value)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("character", ["\n", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_folder_with_a_control_character_is_refused_and_told_escaped(image_folder, split, character):
    root = image_folder()
    (root / split / "dog").rename(root / split / f"d{character}g")
    with pytest.raises(DataInvalid, match="accepted is a name on one line") as refusal:
        scan(root)
    assert repr(f"d{character}g") in str(refusal.value)
    assert str(refusal.value).isprintable()


def test_a_pipe_among_the_images_is_passed_over(image_folder):
    root = image_folder()
    before = scan(root).fingerprint
    os.mkfifo(root / "train" / "dog" / "9.png")
    assert scan(root).fingerprint == before
