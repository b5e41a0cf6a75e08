"""Configs for human eyes: nothing is lost in a diff, and a table adds up."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glora_core.configs import Choice, SubnetConfig, decode, lora, parse_layer
from glora_core.errors import ConfigInvalid
from glora_core.reading import Change, choice_text, diff, layer_text, summary, table
from glora_core.space import LayerShape, SearchSpace

SPACE = SearchSpace.of(
    [LayerShape("a", 60, 40), LayerShape("b", 3, 8, bias=False), LayerShape("c", 9, 4, bias=False, absorber="bn")], [2, 8]
)
configs = st.tuples(*(st.sampled_from(allowed) for allowed in SPACE.layer_configs))


def patched(config: SubnetConfig, changes: list[Change]) -> SubnetConfig:
    """The config with the `after` of every change put in."""
    names, layers = [layer.name for layer in SPACE.layers], list(config)
    for change in changes:
        index = names.index(change.layer)
        layers[index] = replace(layers[index], **{change.tensor: change.after})
    return tuple(layers)


@given(configs, configs)
def test_the_difference_put_into_the_first_config_gives_the_second(before, after):
    changes = diff(SPACE, before, after)
    assert patched(before, changes) == after
    assert all(change.before != change.after for change in changes)


@given(configs, configs)
def test_there_is_no_difference_only_between_equal_configs(before, after):
    assert (diff(SPACE, before, after) == []) == (before == after)


@given(configs)
def test_a_config_does_not_differ_from_itself(config):
    assert diff(SPACE, config, config) == []


@given(configs, configs)
def test_the_difference_the_other_way_round_has_before_and_after_exchanged(before, after):
    turned = [replace(change, before=change.after, after=change.before) for change in diff(SPACE, before, after)]
    assert diff(SPACE, after, before) == turned


def test_changes_read_like_sentences_in_the_order_of_layers_and_tensors():
    changes = diff(SPACE, decode("L2NNNN-VNNNN-NNNNN"), decode("L8NNNV-NNNNN-NNVNN"))
    assert [str(change) for change in changes] == [
        "a: A lora 2 → lora 8",
        "a: E none → vector",
        "b: A vector → none",
        "c: C none → vector",
    ]


@pytest.mark.parametrize(("before", "after"), [("NNNNN", "NNNNN"), ("NNNNN-NNNNN-NNNNN", "NNNNN-NNNNN"), ("NNNNN", "NNNNN-NNNNN-NNNNN")])
def test_configs_of_another_number_of_layers_cannot_be_compared(before, after):
    with pytest.raises(ConfigInvalid, match="over 3 layers"):
        diff(SPACE, decode(before), decode(after))


@given(configs)
def test_a_table_has_a_row_per_layer_whose_counts_add_up_to_the_configs_parameters(config):
    head, rule, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(SPACE, config).splitlines()]
    assert head == ["layer", "A", "B", "C", "D", "E", "parameters", ""]
    assert len(rule) == len(head)
    assert [row[0] for row in rows] == ["`a`", "`b`", "`c`"]
    assert sum(int(row[-2].replace(",", "")) for row in rows) == SPACE.parameters(config)


def test_a_tables_cells_are_the_choices_in_words_and_a_dot_for_none():
    assert table(SPACE, decode("L2VNSV-NNNNN-NNL8NS")).splitlines()[2:] == [
        "| `a` | lora 2 | vector | · | scalar | vector | 281 | ████████ |",
        "| `b` | · | · | · | · | · | 0 |  |",
        "| `c` | · | · | lora 8 | · | scalar | 81 | ███ |",
    ]


def test_a_table_of_another_number_of_layers_is_refused():
    with pytest.raises(ValueError):
        table(SPACE, decode("NNNNN"))


@pytest.mark.parametrize(
    ("choice", "text"), [(lora(4), "lora 4"), (Choice("vector"), "vector"), (Choice("scalar"), "scalar"), (Choice("none"), "none")]
)
def test_a_choice_reads_as_words(choice, text):
    assert choice_text(choice) == text


@pytest.mark.parametrize(
    ("code", "text"),
    [("L4NNNV", "A lora 4, E vector"), ("NNNNN", "unchanged"), ("SSVSS", "A scalar, B scalar, C vector, D scalar, E scalar")],
)
def test_a_layer_reads_as_its_tensors_that_are_not_none(code, text):
    assert layer_text(parse_layer(code)) == text


@given(configs)
def test_a_summary_counts_every_tensor_of_every_layer(config):
    text = summary(SPACE, config)
    assert text.startswith(f"{SPACE.parameters(config):,} parameters in 3 layers — ")
    parts = text.split(" — ")[1].split("; ")
    assert [part[0] for part in parts] == list("ABCDE")
    assert [sum(int(n) for n in re.findall(r"×(\d+)", part)) for part in parts] == [3] * 5


def test_a_summary_names_the_most_frequent_choice_first():
    assert summary(SPACE, decode("L2NNNN-NNNNN-NNNNN")).split(" — ")[1].startswith("A: none ×2, lora 2 ×1; B: none ×3;")
