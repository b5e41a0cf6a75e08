"""VTAB-1K: its tasks, a miniature of its prepared folders, and what is said of a name that is not there."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from glora_core.data.folders import scan
from glora_core.data.labelled import Example
from glora_core.data.vtab import TASKS, task, tasks_under
from glora_core.errors import DataInvalid


@pytest.fixture
def vtab(tmp_path: Path, list_folder: Callable[..., Path]) -> Path:
    """A root with two tasks of four images each, and a folder that is none."""
    both = "images/1.png 1\nimages/3.png 4\nimages/0.png 0\nimages/2.png 0\n"
    for name in ("vtab/diabetic_retinopathy", "vtab/clevr_count"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        list_folder(name, val200="images/2.png 0\nimages/3.png 4\n", test="images/3.png 4\n", train800val200=both)
    (tmp_path / "vtab" / "notes").mkdir()
    return tmp_path / "vtab"


def test_there_are_19_tasks_in_three_groups():
    assert Counter(found.group for found in TASKS.values()) == {"natural": 7, "specialized": 4, "structured": 8}
    assert sum(found.classes for found in TASKS.values()) == 940


@pytest.mark.parametrize(("written", "meant"), [("clever_count", "clevr_count"), ("CIFAR", "cifar"), ("flowers102", "oxford_flowers102")])
def test_a_misspelt_task_is_refused_with_the_nearest_one(written, meant):
    with pytest.raises(DataInvalid, match=f"no task '{written}'; did you mean '{meant}'"):
        task(written)


def test_a_name_like_none_is_refused_with_all_of_them():
    with pytest.raises(DataInvalid, match="it has caltech101, cifar"):
        task("xyzzy")


def test_the_tasks_under_a_root_are_those_with_lists(vtab):
    assert [found.name for found in tasks_under(vtab)] == ["diabetic_retinopathy", "clevr_count"]
    assert tasks_under(vtab / "nowhere") == tasks_under("x" * 5000) == ()


def test_a_task_has_all_of_its_classes_whichever_its_lists_show(vtab):
    data = scan(vtab / "diabetic_retinopathy")
    assert data.classes == ("0", "1", "2", "3", "4")
    assert data.counts["train"] == (1, 1, 0, 0, 0)
    assert "train has no images of 3 of 5 classes: 2, 3, 4" in data.warnings


def test_a_label_beyond_a_tasks_classes_is_refused(vtab):
    (vtab / "clevr_count" / "test.txt").write_text("images/3.png 8\n")
    with pytest.raises(DataInvalid, match=r"test\.txt has label 8; VTAB-1K's clevr_count has 8 classes, from 0 to 7"):
        scan(vtab / "clevr_count")


def test_training_and_validation_together_are_read_from_their_own_list(vtab):
    data = scan(vtab / "clevr_count")
    assert [(example.path, example.label) for example in data.examples("train+val")] == [
        ("images/1.png", 1),
        ("images/3.png", 4),
        ("images/0.png", 0),
        ("images/2.png", 0),
    ]


def test_a_list_of_both_that_is_not_their_union_is_warned_of_and_counts(vtab):
    before = scan(vtab / "clevr_count")
    assert not any("together" in warning for warning in scan(vtab / "clevr_count").warnings)
    (vtab / "clevr_count" / "train800val200.txt").write_text("images/0.png 0\nimages/1.png 2\nimages/2.png 0\n")
    assert scan(vtab / "clevr_count").fingerprint != before.fingerprint
    told = "train800val200.txt is not train800.txt and val200.txt together: they differ in 3 images or labels"
    assert told in scan(vtab / "clevr_count").warnings


def test_training_and_validation_together_are_their_union_without_a_list(vtab):
    before = scan(vtab / "clevr_count")
    (vtab / "clevr_count" / "train800val200.txt").unlink()
    data = scan(vtab / "clevr_count")
    assert data.examples("train+val") == (
        Example("images/0.png", 0),
        Example("images/1.png", 1),
        Example("images/2.png", 0),
        Example("images/3.png", 4),
    )
    assert data.fingerprint == before.fingerprint


def test_a_misspelt_folder_is_refused_with_the_task_beside_it(vtab):
    with pytest.raises(DataInvalid, match=r"did you mean '.*vtab/clevr_count'"):
        scan(vtab / "clever-count")


def test_the_root_itself_is_refused_with_the_tasks_in_it(vtab):
    with pytest.raises(DataInvalid, match=r"name one of them: .*vtab/diabetic_retinopathy, .*vtab/clevr_count"):
        scan(vtab)


def test_a_folder_unlike_any_task_is_refused_with_those_beside_it(vtab):
    with pytest.raises(DataInvalid, match="beside it are diabetic_retinopathy, clevr_count"):
        scan(vtab / "xyzzy")


def test_a_task_under_another_name_is_a_folder_of_lists_like_any(vtab):
    shutil.move(vtab / "clevr_count", vtab / "mine")
    with pytest.raises(DataInvalid, match=r"labels \[4\] that train800\.txt lacks"):
        scan(vtab / "mine")
