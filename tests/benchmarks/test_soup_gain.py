"""The benchmark of soups: its rows, on a task that trains in no time."""

import pytest

from benchmarks import soup_gain
from glora_core.effort import Effort


def test_a_row_for_what_stands_for_each_rate_and_for_all_of_them(task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soup_gain, "EFFORTS", {"standard": Effort(2, 4, 1, (1,))})

    rows = soup_gain.run(task, seed=0, rates=(1e-3, 1e-2), count=2, epochs=1)

    found = {row["rate"]: len(row["alone"]) for row in rows}
    alone, taught = {"0.001": 2, "0.01": 2, "all rates": 4}, {"0.001, taught": 2, "0.01, taught": 2, "all rates, taught": 4}
    assert found == {"as they stand": 2, **alone, **taught, "everyone": 10}
    by_name = {row["rate"]: row["alone"] for row in rows}
    assert by_name["all rates"] == by_name["0.001"] + by_name["0.01"]
    assert by_name["everyone"] == by_name["as they stand"] + by_name["all rates"] + by_name["all rates, taught"]
    assert by_name["0.01"] != by_name["0.01, taught"] or rows[2]["alone_loss"] != rows[5]["alone_loss"]
    assert all(0 <= row[name] <= 1 for row in rows for name in ("uniform", "greedy"))
    assert all(1 <= row["greedy_members"] <= len(row["alone"]) for row in rows)
