"""Known methods as points of the space."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glora_core.configs import encode
from glora_core.errors import ConfigInvalid
from glora_core.methods import METHODS, method_config, method_layer, methods_within
from glora_core.space import LayerShape, SearchSpace

SPACE = SearchSpace((LayerShape("a", 6, 4), LayerShape("b", 4, 8)), ranks=(2, 4))


@pytest.mark.parametrize(("method", "code"), [("linear-probe", "NNNNN"), ("bitfit", "NNNNV"), ("ssf", "VNNVV"), ("lora", "NL4NNN")])
def test_each_method_is_its_point_of_the_space_on_every_layer(method, code):
    assert encode(method_config(SPACE, method)) == f"{code}-{code}"


def test_lora_can_be_had_at_another_rank():
    assert encode(method_config(SPACE, "lora", rank=3)) == "NL3NNN-NL3NNN"


def test_an_unknown_method_is_refused_with_the_accepted_ones():
    with pytest.raises(ConfigInvalid, match=f"'dora'.*{', '.join(METHODS)}"):
        method_layer("dora")


@given(st.integers(0, SPACE.maximum))
def test_every_method_within_a_budget_respects_it(budget):
    assert all(SPACE.parameters(config) <= budget for config in methods_within(SPACE, budget).values())


def test_the_linear_probe_fits_a_budget_of_nothing():
    assert set(methods_within(SPACE, 0)) == {"linear-probe"}


@pytest.mark.parametrize(("budget", "rank"), [(10 + 12, 1), (2 * 22 + 1, 2), (3 * 22, 3), (4 * 22, 4), (10_000, 4)])
def test_lora_takes_the_highest_rank_that_fits_up_to_the_spaces_own(budget, rank):
    assert methods_within(SPACE, budget)["lora"] == method_config(SPACE, "lora", rank)


def test_a_method_that_no_rank_fits_is_left_out():
    assert "lora" not in methods_within(SPACE, 21)
