"""Known methods as points of the space."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glora_core.configs import encode
from glora_core.errors import ConfigInvalid
from glora_core.methods import METHODS, method_config, method_layer, methods_within, seeds_within
from glora_core.space import LayerShape, Override, SearchSpace

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


@pytest.mark.parametrize(("budget", "code"), [(21, "NL1NNN-NNNNN"), (12, "NL1NNN-NNNNN"), (10, "NL1NNN-NNNNN"), (9, None)])
def test_lora_that_no_rank_fits_on_all_layers_is_on_those_of_the_fewest_parameters(budget, code):
    found = methods_within(SPACE, budget).get("lora")
    assert (found and encode(found)) == code


def test_of_equal_layers_the_last_have_lora_where_not_all_can():
    space = SearchSpace.of([LayerShape(name, 6, 4) for name in "abc"])
    assert encode(methods_within(space, 2 * 10 + 9)["lora"]) == "NNNNN-NL1NNN-NL1NNN"


def test_lora_on_some_layers_is_a_seed_where_the_space_has_rank_1_and_no_more_fits():
    thin = SearchSpace(SPACE.layers, ranks=(1, 2))
    assert "NL1NNN-NNNNN" in [encode(config) for config in seeds_within(thin, 21)]
    assert not any(encode(config).startswith("NL") for config in seeds_within(SPACE, 21))
    assert not any(encode(config).startswith("NL") for config in seeds_within(SPACE, 2 * 22 - 1)), "rank 1 would fit on all layers"


@pytest.mark.parametrize(
    ("layer", "new_biases", "codes"),
    [
        (LayerShape("x", 6, 4, bias=False), False, ["NNNNN", "NNNNN", "VNNNN", "NL4NNN"]),
        (LayerShape("x", 6, 4, bias=False, absorber="bn"), False, ["NNNNN", "NNNNV", "VNNNV", "NL4NNN"]),
        (LayerShape("x", 6, 4, bias=False), True, ["NNNNN", "NNNNV", "VNNNV", "NL4NNN"]),
    ],
    ids=["no bias", "batch norm", "new biases"],
)
def test_a_tensor_that_a_layer_cannot_carry_is_none_in_every_method(layer, new_biases, codes):
    space = SearchSpace.of([layer], new_biases=new_biases)
    assert [encode(method_config(space, method)) for method in METHODS] == codes


@given(st.integers(0, SPACE.maximum))
def test_every_seed_within_a_budget_is_in_the_space_and_respects_it(budget):
    assert all(SPACE.contains(config) and SPACE.parameters(config) <= budget for config in seeds_within(SPACE, budget))


def test_seeds_have_lora_at_the_highest_of_the_spaces_own_ranks_that_fits():
    assert method_config(SPACE, "lora", 2) in seeds_within(SPACE, 3 * 22)
    assert methods_within(SPACE, 3 * 22)["lora"] not in seeds_within(SPACE, 3 * 22)


def test_a_method_that_one_layer_does_not_allow_is_no_seed():
    space = SearchSpace.of(SPACE.layers, overrides=[Override.of("b", kinds={"E": ["none"]})])
    assert [encode(config) for config in seeds_within(space, space.maximum)] == ["NNNNN-NNNNN", "NL4NNN-NL4NNN"]


def test_a_space_without_low_rank_choices_has_every_other_method():
    space = SearchSpace.of(SPACE.layers, kinds={tensor: ["vector", "none"] for tensor in "ABC"})
    assert set(methods_within(space, space.maximum)) == {"linear-probe", "bitfit", "ssf"}
