"""The benchmark of the search's worth: its groups and figures, on a task that trains in no time."""

import pytest

from benchmarks import search_worth
from benchmarks.quality_parts.methods import budgets
from glora_core.effort import Effort
from glora_core.space import SearchSpace


def test_every_group_has_the_same_finals_within_the_same_budget(task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_worth, "EFFORTS", {"standard": Effort(2, 4, 1, (1,))})
    asked: list[dict[str, list[tuple[object, ...]]]] = []
    groups = search_worth.groups
    monkeypatch.setattr(search_worth, "groups", lambda *given: asked.append(groups(*given)) or asked[0])

    found = search_worth.run(task, seed=0, rates=(1e-3, 1e-2), count=2, epochs=1)

    assert {name: (len(worth.inside), len(worth.alone)) for name, worth in found.items()} == {
        "search": (2, 4),
        "random": (2, 4),
        "middle of the space": (1, 2),
        "LoRA": (1, 2),
    }
    assert all(worth.chosen in worth.alone for worth in found.values())
    space = SearchSpace.of(task.layers)
    assert max(space.parameters(config) for configs in asked[0].values() for config in configs) <= budgets(task.layers)["full"]
    assert search_worth.table({"0": found, "1": found}).row_count == 4
