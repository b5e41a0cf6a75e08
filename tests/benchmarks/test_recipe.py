"""The benchmark of recipes: every recipe trains a supernet and LoRA alone, and what is in its file is not run again."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import recipe
from glora_core.effort import Effort


def test_recipes_are_measured_once_each_and_told_in_one_table(
    task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipe, "effort_named", lambda name: Effort(1, 4, 1, (1,)))
    monkeypatch.setattr(recipe, "asked_tasks", lambda given: {"made up": lambda: task})
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    shared, file = tmp_path / "shared", tmp_path / "recipes.json"
    for name in ("data", "backbones"):
        (shared / name).mkdir(parents=True)
    asked = ["recipe", "--shared", str(shared), "--task", "made up", "--json", str(file), "--lengths", "1"]
    monkeypatch.setattr("sys.argv", [*asked, "--sizes", "8", "50", "--orders", "0", "1"])

    recipe.main()

    rows = json.loads(file.read_text())["recipes"]
    assert list(rows) == ["batches of 8, crop", "batches of 50, crop"]
    for row in rows.values():
        assert list(row) == ["supernet", "1 epochs, order 0", "1 epochs, order 1"]
        assert set(row["supernet"]) == {"LoRA", "largest", "random"}
    assert rows["batches of 8, crop"] != rows["batches of 50, crop"]
    assert "(2)" in capsys.readouterr().out

    before = file.read_bytes()
    monkeypatch.setattr(recipe, "measures", lambda *given: dict.fromkeys(rows["batches of 8, crop"], pytest.fail))
    recipe.main()
    assert file.read_bytes() == before
