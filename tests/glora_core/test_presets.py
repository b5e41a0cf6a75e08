"""Spaces by name: their exact sizes, and known methods as spaces of one subnet."""

import itertools
import re

import pytest

from glora_core.configs import encode
from glora_core.errors import ConfigInvalid
from glora_core.methods import method_config
from glora_core.presets import PRESETS, preset
from glora_core.space import LayerShape, SearchSpace

LAYERS = (LayerShape("a", 6, 4), LayerShape("b", 3, 8, bias=False), LayerShape("c", 9, 4, bias=False, absorber="bn"))
VIT_TINY = tuple(
    LayerShape(f"blocks.{block}.{name}", *size)
    for block in range(12)
    for name, size in {"qkv": (192, 576), "proj": (192, 192), "fc1": (192, 768), "fc2": (768, 192)}.items()
)
METHOD_PRESETS = {
    "linear-probe": ("linear-probe", None),
    "bitfit": ("bitfit", None),
    "ssf": ("ssf", None),
    "lora-1": ("lora", 1),
    "lora-16": ("lora", 16),
}


def test_the_usual_space_has_every_choice_at_three_ranks_and_is_as_large_as_the_papers():
    usual, paper = preset("glora", LAYERS), preset("paper", LAYERS)
    assert [len(configs) for configs in usual.layer_configs] == [6 * 6 * 5 * 3 * 3, 6 * 6, 6 * 6 * 5 * 3]
    assert (usual.ranks_used, usual.minimum, usual.maximum) == ((1, 2, 4), paper.minimum, paper.maximum)


def test_the_papers_space_has_432_configs_of_a_layer_with_bias_16_without_and_144_before_a_batch_norm():
    assert [len(configs) for configs in preset("paper", LAYERS).layer_configs] == [432, 4 * 4, 4 * 4 * 3 * 3]


def test_the_papers_space_over_vit_tiny_has_432_to_the_48_subnets():
    space = preset("paper", VIT_TINY)
    exact = (
        "3185809823713421793819981821778865965899264895505107138769003191249419382239522522669843665438246043990880162201961240908005376"
    )
    assert space.size == 432**48 == int(exact)


def test_the_papers_range_over_vit_tiny_is_from_nothing_to_the_sum_of_the_largest_choices():
    space = preset("paper", VIT_TINY)
    largest = 12 * sum(2 * 4 * (out + into) + 4 * (into + 1) + 2 * out for into, out in ((192, 576), (192, 192), (192, 768), (768, 192)))
    assert (space.minimum, space.maximum) == (0, largest)


def test_the_multirank_space_has_three_ranks_and_1620_configs_of_a_layer():
    space = preset("paper-multirank", LAYERS[:1])
    assert space.ranks_used == (2, 4, 8)
    assert space.size == 6 * 6 * 5 * 3 * 3


@pytest.mark.parametrize("name", ["glora", "paper", "paper-multirank"])
def test_range_and_size_of_one_layers_space_equal_those_by_brute_force(name):
    space = preset(name, LAYERS[2:])
    kinds = {"glora": [4, 2, 1], "paper": [4], "paper-multirank": [8, 4, 2]}[name]
    factor, patch, row = [*(13 * r for r in kinds), 4, 1, 0], [*(10 * r for r in kinds), 9, 0], [4, 1, 0]
    counts = [sum(parts) for parts in itertools.product(factor, factor, patch, row)]
    assert (space.size, space.minimum, space.maximum) == (len(counts), min(counts), max(counts))
    assert sorted(space.costs[0]) == sorted(counts)


@pytest.mark.parametrize("name", ["glora", "paper", "paper-multirank"])
def test_ranks_can_be_chosen_for_the_papers_spaces(name):
    assert preset(name, LAYERS, [1, 3]).ranks_used == (1, 3)


@pytest.mark.parametrize("name", METHOD_PRESETS)
def test_a_known_method_is_a_space_whose_only_subnet_is_that_method(name):
    space, (method, rank) = preset(name, LAYERS), METHOD_PRESETS[name]
    wanted = method_config(SearchSpace.of(LAYERS), method, rank)
    assert list(itertools.product(*space.layer_configs)) == [wanted]
    assert space.minimum == space.maximum == space.parameters(wanted)


def test_methods_leave_out_what_a_layer_cannot_carry():
    assert encode(preset("ssf", LAYERS).extreme(largest=True)) == "VNNVV-VNNNN-VNNNV"


@pytest.mark.parametrize("name", ["papers", "", "lora", "lora-0", "lora-08", "lora-", "lora--4", "lora-12345", "lora-4 ", "dora", "Paper"])
def test_an_unknown_preset_is_refused_with_the_accepted_ones(name):
    with pytest.raises(ConfigInvalid, match=re.escape(f"preset {name!r} is unknown; accepted: {', '.join(PRESETS)}")):
        preset(name, LAYERS)


@pytest.mark.parametrize("name", METHOD_PRESETS)
def test_a_known_method_takes_no_ranks(name):
    with pytest.raises(ConfigInvalid, match=f"{name!r} is a single subnet and takes no ranks"):
        preset(name, LAYERS, [4])
