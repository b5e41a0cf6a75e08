"""The benchmark of how a job spends its epochs: a row for each plan and for LoRA, on a network that has learned nothing."""

from pathlib import Path

import pytest

from benchmarks import finals_length
from benchmarks.finals_length import Before, finals
from examples.digits import pretrain_backbone
from glora_core.effort import Effort


def test_every_plan_is_told_with_its_cost_and_lora_costs_what_standard_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finals_length, "STANDARD", Effort(1, 3, 1, (1,)))
    taught, rungs = finals(2, (1,), (2,), teachers=1), finals(1, (1 / 3, 1), (1, 3), teachers=1)
    monkeypatch.setattr(finals_length, "PLANS", {Before(2, 2): {"taught": taught}, Before(1, 1): {"`standard`": rungs}})

    backbone = pretrain_backbone(tmp_path / "backbone", epochs=1)
    rows = finals_length.run(backbone, 0, 0.1, {})

    searched = 0.4 * 3 * 150 / 80
    standard = 2 + searched + 2 * 1.4 + 3
    costs = {name: row["passes"] for name, row in rows.items()}
    alone = {"LoRA alone, rate 0.0033": round(standard), "LoRA alone, rate 0.01": round(standard)}
    assert costs == pytest.approx({"taught": 4 + 2 * searched + 2 * 2 * 1.4, "`standard`": standard} | alone)
    assert all(0 <= row[name] <= 1 for row in rows.values() for name in ("best_accuracy", "given_accuracy"))
    assert finals_length.run(backbone, 0, 0.1, rows | {"taught": {"passes": 1.0}}) == rows | {"taught": {"passes": 1.0}}
    assert finals_length.table({"0": rows, "1": rows}).row_count == 4


def test_splits_share_no_image_and_val_and_test_follow_the_seed() -> None:
    first, again, other = (finals_length.splits(seed) for seed in (0, 0, 1))
    assert [len(split) for split in first] == [80, 150, 666]
    assert all((mine.pixels == same.pixels).all() for mine, same in zip(first, again, strict=True))
    assert first[0].labels.bincount().tolist() == [16] * 5
    assert (first[0].pixels != other[0].pixels).any()
