"""The vocabulary of the search: canonical texts, hashes, refusals and parameter counts."""

import itertools
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glora_core.configs import KINDS, NONE, SCALAR, TENSORS, VECTOR, Choice, LayerConfig, config_hash, decode, encode, lora, parse_layer
from glora_core.errors import BudgetInfeasible, ConfigInvalid
from glora_core.space import LayerShape, SearchSpace

SHAPES = (LayerShape("first", 3, 5), LayerShape("second", 7, 2))


def choices(tensor: str) -> st.SearchStrategy[Choice]:
    plain = st.sampled_from([Choice(kind) for kind in KINDS[tensor] if kind != "lora"])
    return plain | st.integers(1, 10**6).map(lora) if "lora" in KINDS[tensor] else plain


layer_configs = st.builds(LayerConfig, *(choices(tensor) for tensor in TENSORS))
subnet_configs = st.lists(layer_configs, min_size=1, max_size=8).map(tuple)


@given(subnet_configs)
def test_canonical_text_reads_back_as_the_same_config(config):
    assert decode(encode(config)) == config


@given(subnet_configs, subnet_configs)
def test_equal_texts_and_equal_hashes_mean_equal_configs(first, second):
    assert (encode(first) == encode(second)) == (first == second)
    assert (config_hash(first) == config_hash(second)) == (first == second)


@given(st.text("LVSN0123456789-", max_size=20))
def test_text_is_either_refused_or_canonical(text):
    try:
        config = decode(text)
    except ConfigInvalid:
        return
    assert encode(config) == text


def test_hash_of_a_known_config_never_changes():
    config = (LayerConfig(A=lora(4), B=VECTOR, D=SCALAR), LayerConfig(), LayerConfig(VECTOR, lora(12), lora(2), VECTOR, VECTOR))
    assert encode(config) == "L4VNSN-NNNNN-VL12L2VV"
    assert config_hash(config) == "67890b612bb4ee9f113ae0c4003db514e00fddba9a56a2c663adf441812a4cbb"


@pytest.mark.parametrize(
    "code",
    ["", "NNNN", "NNNNNN", "L0NNNN", "L04NNNN", "LNNNN", "L-1NNNN", "nnnnn", "NNNNX", "NNNNN ", " NNNNN", "N NNNN", "L4VNSN-", "NNSNN"],
)
def test_a_text_that_is_no_config_is_refused(code):
    with pytest.raises(ConfigInvalid):
        decode(code)


@pytest.mark.parametrize(("code", "tensor"), [("NNSNN", "C"), ("NNNL1N", "D"), ("NNNNL1", "E")])
def test_a_choice_that_its_tensor_cannot_take_is_refused_by_name(code, tensor):
    with pytest.raises(ConfigInvalid, match=rf"^{tensor} cannot be .*accepted: "):
        parse_layer(code)


@pytest.mark.parametrize(("kind", "rank"), [("dense", 0), ("lora", 0), ("lora", -1), ("vector", 1), ("none", 3)])
def test_a_choice_of_unknown_kind_or_with_a_rank_out_of_place_is_refused(kind, rank):
    with pytest.raises(ConfigInvalid):
        Choice(kind, rank)


def test_a_negative_rank_is_refused_for_every_kind():
    with pytest.raises(ConfigInvalid):
        Choice("vector", -1)


def test_a_rank_in_digits_of_another_script_is_refused():
    with pytest.raises(ConfigInvalid):
        parse_layer("L1\u0663VNNN")


def test_an_absurdly_long_rank_is_refused_as_an_invalid_config():
    with pytest.raises(ConfigInvalid):
        parse_layer("L" + "9" * 5000 + "NNNN")


IN, OUT = 3, 5
TABLE = {
    ("A", "lora"): 2 * (OUT + IN),
    ("A", "vector"): OUT,
    ("A", "scalar"): 1,
    ("B", "lora"): 2 * (OUT + IN),
    ("B", "vector"): OUT,
    ("B", "scalar"): 1,
    ("C", "lora"): 2 * (IN + 1),
    ("C", "vector"): IN,
    ("D", "vector"): OUT,
    ("D", "scalar"): 1,
    ("E", "vector"): OUT,
    ("E", "scalar"): 1,
}


@pytest.mark.parametrize(("tensor", "kind"), TABLE)
def test_each_choice_counts_the_parameters_of_the_table(tensor, kind):
    config = LayerConfig(**{tensor: lora(2) if kind == "lora" else Choice(kind)})
    assert config.parameters(IN, OUT) == TABLE[tensor, kind]


@given(layer_configs, st.integers(1, 100), st.integers(1, 100))
def test_a_layers_count_is_the_sum_over_its_tensors(config, fan_in, fan_out):
    alone = sum(LayerConfig(**{tensor: config[tensor]}).parameters(fan_in, fan_out) for tensor in TENSORS)
    assert config.parameters(fan_in, fan_out) == alone


def test_the_full_space_has_432_layer_configs_at_one_rank():
    assert len(set(SearchSpace(SHAPES).layer_configs)) == 432
    assert SearchSpace(SHAPES).size == 432**2


def test_each_further_rank_adds_a_choice_to_A_B_and_C():
    assert len(SearchSpace(SHAPES, ranks=(1, 4)).layer_configs) == 5 * 5 * 4 * 3 * 3


def test_a_space_restricted_to_some_kinds_offers_only_those():
    space = SearchSpace.of(
        SHAPES, ranks=(8, 2), kinds={"A": ("none",), "B": ("none", "lora"), "C": ("none",), "D": ("none",), "E": ("none",)}
    )
    assert [config.code for config in space.layer_configs] == ["NL8NNN", "NL2NNN", "NNNNN"]


def test_extremes_and_range_equal_those_found_by_enumeration():
    kinds = {"A": ("lora", "vector"), "B": ("scalar", "none"), "C": ("vector", "none"), "D": ("scalar",), "E": ("none",)}
    space = SearchSpace.of(SHAPES, kinds=kinds)
    counts = [space.parameters(config) for config in itertools.product(space.layer_configs, repeat=2)]
    assert (space.minimum, space.maximum) == (min(counts), max(counts))
    assert space.parameters(space.extreme(largest=True)) == max(counts)
    assert space.parameters(space.extreme(largest=False)) == min(counts)


def test_costs_are_listed_in_the_order_of_the_layer_configs():
    space = SearchSpace(SHAPES)
    expected = tuple(tuple(c.parameters(s.in_features, s.out_features) for c in space.layer_configs) for s in SHAPES)
    assert space.costs == expected


def test_a_config_is_in_the_space_only_if_every_layer_is_allowed_and_none_is_missing():
    space = SearchSpace(SHAPES, ranks=(4,))
    assert space.contains(decode("L4NNNN-NNNNN"))
    assert not space.contains(decode("L4NNNN-L2NNNN"))
    assert not space.contains(decode("L4NNNN"))
    assert not space.contains(decode("NNNNN-NNNNN-NNNNN"))


def test_counting_a_config_of_another_length_is_refused():
    with pytest.raises(ValueError):
        SearchSpace(SHAPES).parameters(decode("NNNNN"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"layers": ()},
        {"ranks": ()},
        {"ranks": (0,)},
        {"ranks": (4, 4)},
        {"kinds": {"F": ("none",)}},
        {"kinds": {"A": ()}},
        {"kinds": {"C": ("scalar",)}},
        {"kinds": {"D": ("lora",)}},
    ],
    ids=str,
)
def test_a_space_that_makes_no_sense_is_refused(arguments):
    with pytest.raises(ConfigInvalid):
        SearchSpace.of(**({"layers": SHAPES} | arguments))


def test_a_budget_below_the_smallest_subnet_is_refused_with_the_achievable_range():
    space = SearchSpace.of(SHAPES, kinds={"E": ("vector", "scalar")})
    with pytest.raises(BudgetInfeasible, match=f"from {space.minimum:,} to {space.maximum:,}") as refusal:
        space.check_budget(space.minimum - 1)
    assert (refusal.value.budget, refusal.value.minimum, refusal.value.maximum) == (space.minimum - 1, space.minimum, space.maximum)


def test_a_budget_of_exactly_the_smallest_subnet_is_accepted():
    space = SearchSpace.of(SHAPES, kinds={"E": ("vector", "scalar")})
    assert space.check_budget(space.minimum) is None


def test_a_refused_budget_survives_the_way_to_another_process():
    refusal = pickle.loads(pickle.dumps(BudgetInfeasible(1, 2, 3)))
    assert (refusal.budget, refusal.minimum, refusal.maximum) == (1, 2, 3)


def test_layers_are_named_in_the_spaces_order():
    config = decode("VNNNN-NNNNS")
    assert list(SearchSpace(SHAPES).named(config)) == [("first", config[0]), ("second", config[1])]


@pytest.mark.parametrize(("text", "ranks"), [("L3NNNN-NL8L3NN", (3, 8)), ("VNNNN-NNNNN", (1,))])
def test_the_covering_space_of_a_config_contains_it_with_no_other_ranks(text, ranks):
    space = SearchSpace.of(SHAPES, ranks=(4,), kinds={"A": ("none",)}).covering(decode(text))
    assert space.contains(decode(text))
    assert space.ranks == ranks


def test_a_space_from_a_request_does_not_depend_on_the_order_in_which_it_was_written():
    first = SearchSpace.of(SHAPES, [4, 1], {"A": ["none", "vector"], "B": ["none"]})
    second = SearchSpace.of(list(SHAPES), json.loads("[1, 4]"), {"B": ["none"], "A": ["none", "vector"]})
    assert first == second


def test_the_default_layer_config_is_none_everywhere():
    assert all(LayerConfig()[tensor] == NONE for tensor in TENSORS)
