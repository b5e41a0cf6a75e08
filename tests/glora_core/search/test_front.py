"""The front of several objectives, and the order of subnets by two at once."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glora_core.methods import method_config
from glora_core.presets import preset
from glora_core.search import Evaluated, rank
from glora_core.search.front import by_both, pareto_front
from glora_core.space import LayerShape

POINTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=30)


def dominates(one: Sequence[int], other: Sequence[int]) -> bool:
    return one != other and all(mine >= its for mine, its in zip(one, other, strict=True))


@given(POINTS)
def test_front_is_what_nothing_dominates_each_point_once(points: list[tuple[int, ...]]) -> None:
    front = pareto_front(points, lambda point: point)
    assert front == [p for i, p in enumerate(points) if not any(dominates(q, p) for q in points) and p not in points[:i]]


def test_by_both_puts_the_front_before_the_rest_and_the_balanced_before_the_ends() -> None:
    space = preset("paper", [LayerShape("fc", 4, 8)])
    measured = {"bitfit": (0.9, 0.05), "lora": (0.8, 0.8), "ssf": (0.2, 0.9), "linear-probe": (0.1, 0.1)}
    ranked = rank(Evaluated(method_config(space, name), accuracy, 1.0, 10, second=second) for name, (accuracy, second) in measured.items())
    names = {method_config(space, name): name for name in measured}
    order = [names[one.config] for one in by_both(ranked)]
    assert (order[0], order[-1]) == ("lora", "linear-probe")
    assert by_both(list(ranked)) == by_both(ranked)


@pytest.mark.parametrize("points", [[], [(1, 2)]])
def test_front_of_none_and_of_one_is_itself(points: list[tuple[int, ...]]) -> None:
    assert pareto_front(points, lambda point: point) == points
