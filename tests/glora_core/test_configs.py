"""Choices, layer configs and subnet configs: their canonical texts, hashes, refusals and parameter counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glora_core.configs import (
    KINDS,
    NONE,
    SCALAR,
    TENSORS,
    VECTOR,
    Choice,
    LayerConfig,
    config_hash,
    decode,
    encode,
    lora,
    parse_choice,
    parse_layer,
)
from glora_core.errors import ConfigInvalid


def choices(tensor: str) -> st.SearchStrategy[Choice]:
    plain = st.sampled_from([Choice(kind) for kind in KINDS[tensor] if kind != "lora"])
    return plain | st.integers(1, 10**6).map(lora) if "lora" in KINDS[tensor] else plain


layer_configs = st.builds(LayerConfig, *(choices(tensor) for tensor in TENSORS))
subnet_configs = st.lists(layer_configs, min_size=1, max_size=8).map(tuple)


@given(subnet_configs)
def test_canonical_text_reads_back_as_the_same_config(config):
    assert decode(encode(config)) == config


@given(st.sampled_from(TENSORS).flatmap(choices))
def test_a_choices_code_reads_back_as_the_same_choice(choice):
    assert parse_choice(choice.code) == choice


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


GOLDEN = {
    "NNNNN": ((LayerConfig(),), "4dd65d504cb177906c39754c46ba99ea9699a0499ecc4f11a64bd709c26bdda0"),
    "L4L4L4VV": (
        (LayerConfig(lora(4), lora(4), lora(4), VECTOR, VECTOR),),
        "7592ff3b71ebaf533497a3684a06556801b2978116e64910cf1c18d4ed06e47c",
    ),
    "SSVSS-VNNVV": (
        (LayerConfig(SCALAR, SCALAR, VECTOR, SCALAR, SCALAR), LayerConfig(A=VECTOR, D=VECTOR, E=VECTOR)),
        "201025c4cbf831393d7d7d7231631a64f6888db9c419d077d56d763ebfc78b2b",
    ),
    "NL123456789NNN": ((LayerConfig(B=lora(123456789)),), "4875c235f1afc8c46e5b55f9ec0fa1b53952fc9e7f75803e233163d55f88ed59"),
    "L4VNSN-NNNNN-VL12L2VV": (
        (LayerConfig(A=lora(4), B=VECTOR, D=SCALAR), LayerConfig(), LayerConfig(VECTOR, lora(12), lora(2), VECTOR, VECTOR)),
        "67890b612bb4ee9f113ae0c4003db514e00fddba9a56a2c663adf441812a4cbb",
    ),
}
"""Texts and hashes that are stored in databases and manifests: they must never change."""


@pytest.mark.parametrize("text", GOLDEN)
def test_canonical_text_and_hash_of_a_known_config_never_change(text):
    config, digest = GOLDEN[text]
    assert encode(config) == text
    assert config_hash(config) == digest


@pytest.mark.parametrize(
    "code",
    ["", "NNNN", "NNNNNN", "L0NNNN", "L04NNNN", "LNNNN", "L-1NNNN", "nnnnn", "NNNNX", "NNNNN ", " NNNNN", "N NNNN", "L4VNSN-", "NNSNN"],
)
def test_a_text_that_is_no_config_is_refused(code):
    with pytest.raises(ConfigInvalid):
        decode(code)


@pytest.mark.parametrize("code", ["", "L", "L0", "L04", "l4", "X", "VV", "L4 ", "lora", "L\u0664", "L" + "9" * 5000])
def test_a_text_that_is_no_choice_is_refused_with_the_accepted_ones(code):
    with pytest.raises(ConfigInvalid, match="accepted: lora, vector, scalar, none, or a code: L<rank>, V, S, N"):
        parse_choice(code)


@pytest.mark.parametrize(("code", "tensor"), [("NNSNN", "C"), ("NNNL1N", "D"), ("NNNNL1", "E")])
def test_a_choice_that_its_tensor_cannot_take_is_refused_by_name(code, tensor):
    with pytest.raises(ConfigInvalid, match=rf"^{tensor} cannot be .*accepted: "):
        parse_layer(code)


@pytest.mark.parametrize(("kind", "rank"), [("dense", 0), ("lora", 0), ("lora", -1), ("vector", 1), ("none", 3), ("lora", 10**9)])
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


def test_the_default_layer_config_is_none_everywhere():
    assert all(LayerConfig()[tensor] == NONE for tensor in TENSORS)
