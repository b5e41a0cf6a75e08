"""The search space: what each layer may have, how many subnets that makes, their sizes, and what is refused."""

import itertools
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glora_core.configs import KINDS, TENSORS, decode, encode, lora, parse_layer
from glora_core.errors import BudgetInfeasible, ConfigInvalid
from glora_core.space import LayerShape, Override, SearchSpace

SHAPES = (LayerShape("first", 3, 5), LayerShape("second", 7, 2))
BLOCKS = tuple(LayerShape(f"blocks.{block}.{name}", 4, 6) for block in (0, 1, 10) for name in ("attn.qkv", "mlp.fc1"))
BIASLESS = LayerShape("plain", 3, 5, bias=False)
NORMED = LayerShape("conv", 9, 4, bias=False, absorber="bn")


def codes(space: SearchSpace, tensor: str) -> list[str]:
    """The allowed choices of one tensor, layer after layer, each as one text."""
    return [" ".join(choice.code for choice in choices[tensor]) for choices in space.choices]


def enumerated(space: SearchSpace) -> list[int]:
    """The parameters of every subnet of a small space."""
    return [space.parameters(config) for config in itertools.product(*space.layer_configs)]


def test_the_full_space_has_432_layer_configs_at_one_rank():
    space = SearchSpace(SHAPES)
    assert [len(set(configs)) for configs in space.layer_configs] == [432, 432]
    assert space.size == 432**2


def test_each_further_rank_adds_a_choice_to_A_B_and_C():
    assert [len(configs) for configs in SearchSpace(SHAPES, ranks=(1, 4)).layer_configs] == [5 * 5 * 4 * 3 * 3] * 2


def test_a_space_restricted_to_some_kinds_offers_only_those():
    space = SearchSpace.of(
        SHAPES, ranks=(8, 2), kinds={"A": ("none",), "B": ("none", "lora"), "C": ("none",), "D": ("none",), "E": ("none",)}
    )
    assert [[config.code for config in configs] for configs in space.layer_configs] == [["NL8NNN", "NL2NNN", "NNNNN"]] * 2


def test_a_choice_can_be_allowed_by_its_code_whatever_the_ranks():
    space = SearchSpace.of(SHAPES, ranks=(4,), kinds={"A": ("L16", "N"), "B": ("lora", "L8"), "E": ("S",)})
    assert codes(space, "A") == ["L16 N"] * 2
    assert codes(space, "B") == ["L8 L4"] * 2
    assert codes(space, "E") == ["S"] * 2
    assert space.ranks_used == (4, 8, 16)


def test_a_choice_named_twice_counts_once():
    assert codes(SearchSpace.of(SHAPES, ranks=(4,), kinds={"A": ("lora", "L4", "none", "N")}), "A") == ["L4 N"] * 2


def test_choices_are_listed_largest_first_in_whatever_order_they_were_named():
    assert codes(SearchSpace.of(SHAPES, kinds={"A": ("none", "L2", "scalar", "L8", "vector")}), "A") == ["L8 L2 V S N"] * 2


@given(st.sets(st.integers(1, 9), min_size=1, max_size=3), st.sets(st.sampled_from(KINDS["B"]), min_size=1))
def test_extremes_and_range_equal_those_found_by_enumeration(ranks, kinds_of_b):
    kinds = {"A": ("lora", "vector"), "B": tuple(kinds_of_b), "C": ("vector", "none"), "D": ("scalar",), "E": ("none",)}
    space = SearchSpace.of(SHAPES, sorted(ranks), kinds)
    counts = enumerated(space)
    assert (space.size, space.minimum, space.maximum) == (len(counts), min(counts), max(counts))
    assert space.parameters(space.extreme(largest=True)) == max(counts)
    assert space.parameters(space.extreme(largest=False)) == min(counts)


def test_sizes_beyond_floats_are_exact():
    space = SearchSpace(tuple(LayerShape(f"l{i}", 64, 64) for i in range(200)))
    assert space.size == 432**200
    assert math.log10(space.size) > 500
    assert space.maximum == 200 * (2 * 4 * 128 + 4 * 65 + 2 * 64)


def test_costs_are_listed_in_the_order_of_the_layer_configs():
    space = SearchSpace(SHAPES, overrides=(Override.of("second", ranks=[1, 2]),))
    expected = tuple(
        tuple(c.parameters(s.in_features, s.out_features) for c in configs) for s, configs in zip(SHAPES, space.layer_configs, strict=True)
    )
    assert space.costs == expected


def test_layers_that_are_alike_share_their_list_of_costs():
    space = SearchSpace((*SHAPES, LayerShape("third", 3, 5)))
    assert space.costs[0] is space.costs[2]
    assert space.costs[0] is not space.costs[1]


def test_a_config_is_in_the_space_only_if_every_layer_is_allowed_and_none_is_missing():
    space = SearchSpace(SHAPES, ranks=(4,))
    assert space.contains(decode("L4NNNN-NNNNN"))
    assert not space.contains(decode("L4NNNN-L2NNNN"))
    assert not space.contains(decode("L4NNNN"))
    assert not space.contains(decode("NNNNN-NNNNN-NNNNN"))


def test_counting_a_config_of_another_length_is_refused():
    with pytest.raises(ValueError):
        SearchSpace(SHAPES).parameters(decode("NNNNN"))


def test_an_override_changes_the_layers_that_its_pattern_matches_and_no_others():
    space = SearchSpace.of(BLOCKS, overrides=[Override.of("blocks.1.*", ranks=[2, 8], kinds={"E": ["none"]})])
    assert codes(space, "B") == ["L4 V S N", "L4 V S N", "L8 L2 V S N", "L8 L2 V S N", "L4 V S N", "L4 V S N"]
    assert codes(space, "E") == ["V S N", "V S N", "N", "N", "V S N", "V S N"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("*", [1, 1, 1, 1, 1, 1]),
        ("*.qkv", [1, 0, 1, 0, 1, 0]),
        ("blocks.[01].*", [1, 1, 1, 1, 0, 0]),
        ("blocks.?.mlp.fc1", [0, 1, 0, 1, 0, 0]),
        ("blocks.10.mlp.fc1", [0, 0, 0, 0, 0, 1]),
    ],
)
def test_patterns_are_globs_over_whole_layer_names(pattern, matched):
    space = SearchSpace.of(BLOCKS, overrides=[Override.of(pattern, kinds={"A": ["none"]})])
    assert codes(space, "A") == ["N" if hit else "L4 V S N" for hit in matched]


def test_of_several_overrides_the_last_that_names_a_thing_counts():
    first, second = Override.of("*", ranks=[1], kinds={"A": ["none"], "B": ["lora"]}), Override.of("*.qkv", kinds={"A": ["lora"]})
    space = SearchSpace.of(BLOCKS[:2], overrides=[first, second])
    assert (codes(space, "A"), codes(space, "B")) == (["L1", "N"], ["L1", "L1"])
    turned = SearchSpace.of(BLOCKS[:2], overrides=[second, first])
    assert (codes(turned, "A"), codes(turned, "B")) == (["N", "N"], ["L1", "L1"])


def test_a_frozen_layer_has_one_config_and_the_others_keep_theirs():
    config = parse_layer("L16VNSN")
    space = SearchSpace.of(SHAPES, overrides=[Override.freeze("second", config)])
    assert space.layer_configs[1] == (config,)
    assert space.size == 432
    assert space.minimum == config.parameters(7, 2)


@pytest.mark.parametrize("pattern", ["third", "blocks.0.*", "FIRST", "firs"])
def test_a_pattern_that_matches_no_layer_is_refused_with_a_layer_that_there_is(pattern):
    with pytest.raises(ConfigInvalid, match=r"override '.*' matches no layer; layers are named like 'first'") as refusal:
        SearchSpace.of(SHAPES, overrides=[Override.of(pattern)])
    assert pattern in str(refusal.value)


@pytest.mark.parametrize("changes", [{"ranks": []}, {"ranks": [0]}, {"ranks": [2, 2]}, {"kinds": {"F": ["none"]}}, {"kinds": {"C": ["S"]}}])
def test_an_override_that_makes_no_sense_is_refused_by_its_pattern(changes):
    with pytest.raises(ConfigInvalid, match="override 'first': "):
        SearchSpace.of(SHAPES, overrides=[Override.of("first", **changes)])


@pytest.mark.parametrize(
    ("layer", "new_biases", "tensors"),
    [
        (LayerShape("biased", 3, 5), False, "ABCDE"),
        (BIASLESS, False, "AB"),
        (NORMED, False, "ABCE"),
        (BIASLESS, True, "ABCE"),
        (NORMED, True, "ABCE"),
    ],
    ids=["bias", "no bias", "batch norm", "no bias, new ones", "batch norm, new ones"],
)
def test_a_layer_carries_only_what_its_architecture_has_a_place_for(layer, new_biases, tensors):
    space = SearchSpace.of([layer], kinds={tensor: KINDS[tensor] for tensor in TENSORS}, new_biases=new_biases)
    (allowed,) = space.choices
    assert "".join(tensor for tensor in TENSORS if len(allowed[tensor]) > 1) == tensors
    assert all([choice.code for choice in allowed[tensor]] == ["N"] for tensor in TENSORS if tensor not in tensors)
    assert space.size == math.prod(len(KINDS[tensor]) for tensor in tensors)


def test_no_override_gives_a_layer_what_it_cannot_carry():
    space = SearchSpace.of([BIASLESS], overrides=[Override.of("*", kinds={tensor: ["vector"] for tensor in TENSORS})])
    assert [config.code for config in space.layer_configs[0]] == ["VVNNN"]


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
        {"kinds": {"D": ("L4",)}},
        {"kinds": {"A": ("L0",)}},
        {"kinds": {"A": ("dense",)}},
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


@pytest.mark.parametrize(("text", "ranks"), [("L3NNNN-NL8L3NN", (3, 8)), ("VNNNN-NNNNN", ())])
def test_the_covering_space_of_a_config_holds_it_and_nothing_else(text, ranks):
    space = SearchSpace.of(SHAPES, ranks=(4,), kinds={"A": ("none",)}).covering(decode(text))
    assert list(itertools.product(*space.layer_configs)) == [decode(text)]
    assert space.size == 1
    assert space.ranks_used == ranks


def test_names_with_the_characters_of_patterns_are_covered_literally():
    layers = [LayerShape(name, 3, 5) for name in ("a[0]", "a0", "a*", "ab", "a?")]
    config = decode("VNNNN-SNNNN-NVNNN-NSNNN-NNVNN")
    assert list(itertools.product(*SearchSpace.of(layers).covering(config).layer_configs)) == [config]


def test_a_covering_space_keeps_that_new_biases_are_allowed():
    space = SearchSpace.of([BIASLESS], new_biases=True)
    assert space.covering(decode("NNNNV")).contains(decode("NNNNV"))


def test_a_space_from_a_request_does_not_depend_on_the_order_in_which_it_was_written():
    first = SearchSpace.of(SHAPES, [4, 1], {"A": ["none", "vector"], "B": ["none"]})
    second = SearchSpace.of(list(SHAPES), json.loads("[1, 4]"), {"B": ["none"], "A": ["none", "vector"]})
    assert first == second


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    layers = draw(
        st.lists(
            st.builds(
                LayerShape, st.sampled_from(["a", "b", "c.d", "c.e"]), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.just("")
            ),
            min_size=1,
            max_size=4,
            unique_by=lambda layer: layer.name,
        )
    )
    ranks = st.sets(st.integers(1, 9), min_size=1, max_size=3).map(sorted)
    kinds = st.fixed_dictionaries(
        {}, optional={t: st.lists(st.sampled_from([*KINDS[t], "N", "V"]), min_size=1, max_size=3) for t in TENSORS}
    )
    pattern = st.sampled_from(["*", *(layer.name for layer in layers)])
    overrides = draw(st.lists(st.builds(Override.of, pattern, st.none() | ranks, kinds), max_size=3))
    return SearchSpace.of(layers, draw(ranks), draw(kinds), overrides, draw(st.booleans()))


@given(spaces())
def test_a_space_reads_back_from_json_as_the_same_space(space):
    again = SearchSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space
    assert again.layer_configs == space.layer_configs


@given(spaces(), st.data())
def test_each_config_drawn_from_the_layers_lists_is_contained_and_covered(space, data):
    config = tuple(data.draw(st.sampled_from(configs)) for configs in space.layer_configs)
    assert space.contains(config)
    assert [encode(config)] == [encode(found) for found in itertools.product(*space.covering(config).layer_configs)]


@pytest.mark.parametrize("rank", [4.0, 2.5, True, "4", None, 10**9, 0], ids=repr)
def test_a_rank_that_is_no_integer_of_at_least_one_is_refused(rank):
    shape = LayerShape("layer", 8, 8)
    with pytest.raises(ConfigInvalid, match=r"ranks .*must be distinct integers"):
        SearchSpace.of([shape], ranks=[2, rank])
    with pytest.raises(ConfigInvalid, match=r"override 'layer': ranks .*must be distinct integers"):
        SearchSpace.of([shape], overrides=[Override.of("layer", ranks=[rank])])
    with pytest.raises(ConfigInvalid, match="rank"):
        lora(rank)


def test_a_space_of_more_configs_than_can_be_listed_is_refused_before_they_are():
    layers = [LayerShape(f"layer{i}", 8, 8) for i in range(3)]
    wide = {tensor: [f"L{rank}" for rank in range(1, 400)] for tensor in "ABC"}
    with pytest.raises(ConfigInvalid, match=r"layers have [0-9,]+ configs; accepted are at most 200,000: name fewer ranks or choices"):
        SearchSpace.of(layers, kinds=wide)
    assert SearchSpace.of(layers, ranks=range(1, 17)).minimum == 0
