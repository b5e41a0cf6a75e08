"""Images in folders that Hugging Face `datasets` saved: the same examples as from files, and refusals by split and row."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from glora_core.backbones import Transform
from glora_core.data.folders import scan
from glora_core.data.images import load_split
from glora_core.data.shifted import present, scan_test
from glora_core.errors import DataInvalid, LibraryMissing

TRANSFORM = Transform((3, 8, 8), "bicubic", (0.5,) * 3, (0.5,) * 3, 1.0, "center")


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Saves splits of (bytes, label) as `datasets` does; labels are numbers of named classes unless a type is given."""
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")

    def write(name: str = "saved", column: str = "label", kind: Any = None, **splits: list[tuple[bytes, Any]]) -> Path:
        features = datasets.Features({"img": datasets.Image(), column: kind or datasets.ClassLabel(names=["tulip", "daisy"])})
        built = {
            split: datasets.Dataset.from_dict(
                {"img": [{"bytes": data, "path": None} for data, _ in rows], column: [label for _, label in rows]}, features=features
            )
            for split, rows in splits.items()
        }
        datasets.DatasetDict(built).save_to_disk(str(tmp_path / name))
        return tmp_path / name

    return write


def test_saved_images_are_those_of_the_files(save: Callable[..., Path], tmp_path: Path) -> None:
    rows = {"train": [(png(0), 0), (png(1), 1)], "validation": [(png(2), 1), (png(0), 0)]}
    found = scan(save(**rows))
    for split, name in (("train", "train"), ("val", "validation")):
        for row, (data, label) in enumerate(rows[name]):
            path = tmp_path / "files" / split / ("tulip", "daisy")[label] / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    files = scan(tmp_path / "files")

    assert (found.classes, found.counts) == (("tulip", "daisy"), {"train": (1, 1), "val": (1, 1)})
    assert found.duplicates[0].examples == (("train/0", "validation/1"),)
    saved, written = (load_split(data, "train", TRANSFORM).pixels for data in (found, files))
    assert torch.equal(saved, written.flip(0))  # whose classes are in the order of their names
    assert scan(save(**rows)).fingerprint == found.fingerprint


def test_a_further_test_set_may_be_saved_too(save: Callable[..., Path]) -> None:
    data = scan(save(train=[(png(0), 0), (png(1), 1)], validation=[(png(2), 1)]))
    found = scan_test(save("further", test=[(png(3), 1), (png(4), 0)], train=[(png(5), 0)]), data)
    assert ([example.label for example in found.splits["test"]], present(found)) == ([1, 0], (0, 1))


def test_the_only_column_of_named_classes_is_that_of_labels(save: Callable[..., Path]) -> None:
    assert scan(save(column="fine", train=[(png(0), 0), (png(1), 1)], validation=[(png(2), 1)])).classes == ("tulip", "daisy")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"train": [(png(0), 0), (b"no image", 1)], "validation": [(png(2), 1)]}, r"saved/train/1' cannot be decoded"),
        ({"train": [(png(0), 0), (png(1), -1)], "validation": [(png(2), 1)]}, r"train row 1: label is -1; accepted is 0 to 1"),
        ({"train": [(png(0), 0), (png(1), 1)]}, r"split 'val' is missing"),
        ({"train": [(png(0), 0), (png(1), 1)], "dev": [(png(2), 1)]}, r"has a split 'dev'; accepted are train, val"),
    ],
)
def test_what_cannot_be_used_is_refused_by_split_and_row(save: Callable[..., Path], rows: Any, told: str) -> None:
    with pytest.raises(DataInvalid, match=told):
        scan(save(**rows))


def test_without_the_library_the_refusal_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "dataset_dict.json").write_text("{}")
    with pytest.raises(LibraryMissing, match="pip install datasets"):
        scan(tmp_path)


@pytest.mark.parametrize("kind", ["string", ["tulip", "dai\nsy"]])
def test_a_class_of_two_lines_is_refused_and_told_escaped(save: Callable[..., Path], kind: Any) -> None:
    datasets = pytest.importorskip("datasets")
    text = kind == "string"
    rows = [(png(0), "tulip" if text else 0), (png(1), "dai\nsy" if text else 1)]
    with pytest.raises(DataInvalid, match=r"is named 'dai\\nsy'; accepted is a name on one line"):
        scan(save(kind=datasets.Value("string") if text else datasets.ClassLabel(names=kind), train=rows, validation=rows))
