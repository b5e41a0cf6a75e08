"""The benchmark of soups: its rows, on a task that trains in no time."""

import pytest

from benchmarks import soup_gain
from glora_core.effort import Effort


def test_a_row_for_each_rate_and_one_for_all_of_them(task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soup_gain, "EFFORTS", {"standard": Effort(2, 4, 1, (1,))})

    rows = soup_gain.run(task, seed=0, rates=(1e-3, 1e-2), count=2, epochs=1)

    assert [(row["rate"], len(row["alone"])) for row in rows] == [("0.001", 2), ("0.01", 2), ("all", 4)]
    assert rows[2]["alone"] == rows[0]["alone"] + rows[1]["alone"]
    assert all(0 <= row[name] <= 1 for row in rows for name in ("uniform", "greedy"))
    assert all(1 <= row["greedy_members"] <= len(row["alone"]) for row in rows)
