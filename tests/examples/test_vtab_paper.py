"""The paper's VTAB-1K recipe on a miniature of the data: runs to the end, goes on after a kill, and says what it would cost."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from examples import vtab_paper
from examples.vtab_paper import SEARCH, TRAINING, main, parse, recipe_of
from glora_core.training import Trainer

VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
TASK = "patch_camelyon"


@pytest.fixture(scope="module")
def vtab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VTAB-1K's layout with one task of two classes: dark and bright images of odd sizes."""
    root = tmp_path_factory.mktemp("vtab")
    folder, rng = root / TASK, np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    lists = {"train800": range(16), "val200": range(16, 26), "test": range(26, 36)}
    for name, numbers in lists.items():
        rows = [f"images/{i}.jpg {i % 2}" for i in numbers]
        (folder / f"{name}.txt").write_text("\n".join(rows) + "\n")
        for i in numbers:
            pixels = rng.integers(0, 90, (20, 26, 3)) + 150 * (i % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{i}.jpg")
    return root


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT with random weights, as timm reads it from a folder."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=3, **VIT).state_dict(), folder / "model.safetensors")
    cfg = {
        "input_size": [3, 16, 16],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "classifier": "head",
    }
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": VIT, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def start(vtab: Path, backbone: Path, tmp_path: Path) -> Callable[..., int]:
    """Starts the recipe in a folder."""

    def run(name: str = "run", *more: str) -> int:
        given = [
            "--data",
            str(vtab),
            "--task",
            TASK,
            "--backbone",
            f"local-dir:{backbone}",
            "--out",
            str(tmp_path / name),
            "--device",
            "cpu",
        ]
        return main([*given, "--epochs", "6", "--population", "6", "--generations", "3", "--budget", "3000", *more])

    return run


def results(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "results.json").read_text())
    del found["seconds_of_this_start"]
    return found


def test_the_settings_are_the_published_ones() -> None:
    given = parse(["--data", "x", "--task", "cifar", "--out", "y"])
    recipe = recipe_of(given)
    assert (recipe.training, recipe.search) == (TRAINING, SEARCH)
    published = (TRAINING.epochs, TRAINING.learning_rate, TRAINING.warmup_epochs, TRAINING.weight_decay, TRAINING.drop_path)
    assert published == (500, 1e-4, 10, 1e-4, 0.1)
    assert (TRAINING.entanglement, TRAINING.policy, recipe.rank) == ("paper", "random", 4)
    assert (SEARCH.population, SEARCH.generations) == (50, 20)


def test_a_run_leaves_results_and_a_checkpoint_that_plain_timm_loads_and_that_scores_the_same(
    start: Callable[..., int], vtab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start() == 0

    found = results(tmp_path / "run")
    assert re.search(rf"{TASK}: val .*%, test .*%, [\d,]+ parameters", capsys.readouterr().out)
    assert found["parameters"] <= 3000
    assert len(found["losses"]) == 6
    assert found["val_accuracy"] == found["best_val_accuracy_by_generation"][-1]
    model = timm.create_model(f"local-dir:{tmp_path / 'run' / 'checkpoint'}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    rows = [line.split() for line in (vtab / TASK / "test.txt").read_text().splitlines()]
    with torch.inference_mode():
        answers = model(torch.stack([transform(Image.open(vtab / TASK / path)) for path, _ in rows])).argmax(-1)
    right = sum(int(answer) == int(label) for answer, (_, label) in zip(answers, rows, strict=True))
    assert right / len(rows) == pytest.approx(found["test_accuracy"])


@pytest.mark.parametrize("killed", ["in training", "in the search"])
def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_numbers(
    start: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    assert start("whole") == 0
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        if killed == "in training":
            patch.setattr(Trainer, "_train_epoch", _failing_after(4, Trainer._train_epoch))
        else:
            patch.setattr(vtab_paper.SubnetScorer, "score", _failing_after(8, vtab_paper.SubnetScorer.score))
        start("killed")
    if killed == "in the search":
        with (tmp_path / "killed" / "evaluations.jsonl").open("a") as file:
            file.write('{"config": "L4')  # cut off in the middle of a line

    trained: list[int] = []
    epoch = Trainer._train_epoch
    monkeypatch.setattr(Trainer, "_train_epoch", lambda trainer: (trained.append(trainer.epoch), epoch(trainer))[1])
    assert start("killed") == 0
    assert trained == ([4, 5] if killed == "in training" else [])
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    first, second = (sorted((tmp_path / name / "evaluations.jsonl").read_text().splitlines()) for name in ("whole", "killed"))
    assert first == second


def _failing_after(calls: int, real: Callable[..., Any]) -> Callable[..., Any]:
    count = [0]

    def call(*arguments: Any, **named: Any) -> Any:
        count[0] += 1
        if count[0] > calls:
            raise InterruptedError
        return real(*arguments, **named)

    return call


def test_a_folder_with_a_run_of_other_settings_is_refused(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start() == 0
    before = results(tmp_path / "run")
    assert start("run", "--seed", "1") == 1
    assert "holds a run with another training" in capsys.readouterr().err
    assert results(tmp_path / "run") == before


def test_data_that_is_not_there_is_said_in_a_line(start: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert start("run", "--task", "cifar") == 1
    assert "cifar" in capsys.readouterr().err


def test_the_cost_is_told_and_nothing_is_run(start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start("run", "--cost") == 0
    told = capsys.readouterr().out
    assert re.search(r"hours on .*\(96 images forward and backward, .* \(18 evaluations of 10 images", told)
    assert not (tmp_path / "run").exists()


def test_a_task_without_test_images_has_no_test_accuracy(start: Callable[..., int], vtab: Path, tmp_path: Path) -> None:
    shutil.copytree(vtab, tmp_path / "data")
    (tmp_path / "data" / TASK / "test.txt").unlink()
    assert start("run", "--data", str(tmp_path / "data")) == 0
    assert "test_accuracy" not in results(tmp_path / "run")
