"""Adapters that stock peft has made, and those that we have written, read as subnets; what no subnet can express is refused by name."""

import itertools
import json
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from glora_core.backbones import adapted_layers, run
from glora_core.configs import LayerConfig, decode, encode
from glora_core.errors import ConfigInvalid
from glora_core.export.peft import Imported, read_peft, write_peft
from glora_core.layers import GLoRALayer
from glora_core.presets import preset
from glora_core.space import LayerShape, SearchSpace
from glora_core.supernet import Supernet

peft = pytest.importorskip("peft", "0.21.0", reason="the adapters are made by stock peft 0.21 or newer, which is not installed")

ULPS = 32 * torch.finfo(torch.float32).eps
"""Of a merged tensor, as a share of its largest number. peft adds rank + 4 rounded terms in float32, each within 2⁻²⁴; none of them is
larger than a few times the sum here. Ours are rounded once."""

QKV = ["qkv", "proj", "fc1"]
PROTOCOL = ("lora", "vector", "constant", "none"), ("lora", "vector", "none"), ("vector", "constant", "none")
GLORA = {"r": 3, "target_modules": ["qkv", "fc1", "fc2"], "init_weights": False}


def transformer(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="BERT and GPT-2 are models of transformers, which is not installed")
    torch.manual_seed(0)
    if kind == "bert":
        sizes = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
        return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, num_labels=3)).eval()
    tokens = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(n_embd=24, n_layer=2, n_head=2, n_positions=32, num_labels=3, **tokens)
    return transformers.GPT2ForSequenceClassification(config).eval()


@pytest.fixture
def make(make_vit):
    """A factory of bare models by name."""

    def build(name: str = "vit") -> nn.Module:
        if name == "mobilenet":
            torch.manual_seed(0)
            return timm.create_model("mobilenetv2_035", num_classes=3).eval()
        arguments = {"vit": {}, "vit without qkv biases": {"qkv_bias": False}}
        return make_vit(**arguments[name]) if name in arguments else transformer(name)

    return build


def saved_by_stock(folder: Path, backbone: nn.Module, options) -> nn.Module:
    """Let stock peft make an adapter of random numbers and save it; returns peft's model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(backbone, options).eval()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if any(part in name for part in ("lora_A", "lora_B", "lora_embedding", "glora_", "modules_to_save")):
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
        model.save_pretrained(folder)
    return model


def assert_merges_alike(model: nn.Module, imported: Imported) -> None:
    """All of the merged network: peft's and ours."""
    theirs, ours = model.merge_and_unload(safe_merge=True).state_dict(), imported.supernet.merged_state(imported.config)
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        torch.testing.assert_close(
            theirs[name], value, rtol=0, atol=ULPS * float(value.abs().max()), msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("vit", {"r": 4, "lora_alpha": 10, "target_modules": QKV, "modules_to_save": ["head"]}),
        ("vit", {"r": 4, "lora_alpha": 10, "use_rslora": True, "lora_dropout": 0.5, "target_modules": r".*\.(qkv|fc2)"}),
        (
            "vit",
            {
                "r": 4,
                "lora_alpha": 10,
                "target_modules": QKV,
                "rank_pattern": {"attn.qkv": 2, r"blocks\.1\.mlp\.fc1": 5},
                "alpha_pattern": {"^blocks.0.attn.qkv": 7},
            },
        ),
        ("vit", {"target_modules": QKV, "exclude_modules": ["attn.proj", "patch_embed.proj"], "init_lora_weights": "gaussian"}),
        ("vit", {"target_modules": ["qkv", "fc1"], "layers_to_transform": [1], "layers_pattern": "blocks"}),
        ("bert", {"target_modules": ["query"], "layers_to_transform": 1}),
        ("vit", {"target_modules": ["qkv", "head"], "modules_to_save": ["head"]}),
        ("vit", {"target_modules": ["patch_embed.proj", "fc2"]}),
        ("vit", {"target_modules": "all-linear", "init_lora_weights": "orthogonal"}),
        ("vit", {"target_modules": ["qkv"], "modules_to_save": ["norm", "patch_embed"]}),
        ("vit without qkv biases", {"target_modules": ["qkv", "fc1"]}),
        ("mobilenet", {"r": 2, "target_modules": ["conv_pw", "conv_pwl", "conv_head"], "modules_to_save": ["classifier"]}),
        ("bert", {"r": 4, "lora_alpha": 16, "task_type": "SEQ_CLS"}),
        ("gpt2", {"r": 4, "lora_alpha": 16, "task_type": "SEQ_CLS", "fan_in_fan_out": True}),
        ("gpt2", {"r": 4, "target_modules": "all-linear", "layers_to_transform": None, "task_type": "SEQ_CLS", "fan_in_fan_out": True}),
    ],
)
def test_a_lora_adapter_of_stock_peft_merges_as_in_peft(make, tmp_path, backbone, options):
    model = saved_by_stock(tmp_path, make(backbone), peft.LoraConfig(**options))
    imported = read_peft(tmp_path, make(backbone))
    assert imported.whole == {"norm": ("patch_embed", "norm")}.get((options.get("modules_to_save") or [""])[0], ())
    assert {kind.kind for layer in imported.config for kind in (layer.A, layer.C, layer.D, layer.E)} == {"none"}
    assert_merges_alike(model, imported)


@pytest.mark.parametrize(("ab", "c", "de"), itertools.product(*PROTOCOL))
def test_a_glora_adapter_of_stock_peft_merges_as_in_peft(make, tmp_path, ab, c, de):
    settings = peft.GloraConfig(**GLORA, config_A_B=ab, config_C=c, config_D_E=de, modules_to_save=["head"])
    model = saved_by_stock(tmp_path, make(), settings)
    imported = read_peft(tmp_path, make())
    kind = {"lora": "L3", "vector": "V", "constant": "S", "none": "N"}
    assert {layer.code for layer in imported.config} == {kind[ab] * 2 + kind[c] + kind[de] * 2}
    assert_merges_alike(model, imported)


def test_a_glora_adapter_of_layers_without_bias_has_no_c_d_and_e(make, tmp_path):
    name = "vit without qkv biases"
    model = saved_by_stock(tmp_path, make(name), peft.GloraConfig(**GLORA))
    imported = read_peft(tmp_path, make(name))
    assert [layer.code for layer in imported.config] == ["L3L3NNN", "L3L3L3SS", "L3L3L3SS"] * 2
    assert_merges_alike(model, imported)


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_whose_layers_all_travel_whole_comes_back(tmp_path, randomise, tied):
    transformers = pytest.importorskip("transformers", reason="GPT-2 is a model of transformers, which is not installed")
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "n_embd": 24, "n_layer": 1, "n_head": 2, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, tie_word_embeddings=tied)).eval()
    bare = deepcopy(model)
    supernet = randomise(Supernet(model, preset("bitfit", adapted_layers(model))))
    config = supernet.space.extreme(largest=True)

    imported = read_peft(write_peft(tmp_path / "adapter", supernet, config), bare)

    expected, found = supernet.merged_state(config), imported.supernet.merged_state(imported.config)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_an_adapter_of_the_head_is_merged_into_the_head(make, tmp_path):
    model = saved_by_stock(tmp_path, make(), peft.GloraConfig(r=2, target_modules=["head", "fc1"], init_weights=False))
    imported = read_peft(tmp_path, make())
    assert [shape.name for shape in imported.space.layers] == ["blocks.0.mlp.fc1", "blocks.1.mlp.fc1"]
    assert_merges_alike(model, imported)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_adapter_stored_in_another_precision_is_read_as_it_is(make, tmp_path, dtype):
    saved_by_stock(tmp_path, make(), peft.LoraConfig(target_modules=QKV))
    weights = tmp_path / "adapter_model.safetensors"
    save_file({name: value.to(dtype) for name, value in load_file(weights).items()}, weights)
    model = peft.PeftModel.from_pretrained(make(), str(tmp_path))
    assert_merges_alike(model, read_peft(tmp_path, make()))


def test_the_imported_supernet_computes_what_peft_computes_unmerged(make, tmp_path):
    model = saved_by_stock(tmp_path, make("bert"), peft.LoraConfig(r=4, task_type="SEQ_CLS"))
    imported = read_peft(tmp_path, make("bert"))
    tokens = {"input_ids": torch.randint(1, 60, (4, 9), generator=torch.Generator().manual_seed(0))}
    torch.testing.assert_close(imported.supernet(tokens), run(model, tokens), rtol=1e-4, atol=1e-5)


def test_the_space_of_an_imported_adapter_holds_it_alone(make, tmp_path):
    saved_by_stock(tmp_path, make(), peft.LoraConfig(r=4, target_modules=["qkv"]))
    imported = read_peft(tmp_path, make())
    assert imported.space.size == 1 and imported.space.contains(imported.config)
    assert encode(imported.config) == "NL4NNN-NL4NNN"


def test_an_adapter_is_read_over_the_layers_of_a_given_space(make, tmp_path):
    saved_by_stock(tmp_path, make(), peft.LoraConfig(r=4, target_modules=["fc2"]))
    imported = read_peft(tmp_path, make(), adapted_layers(make()))
    assert encode(imported.config) == "NNNNN-NNNNN-NNNNN-NL4NNN-NNNNN-NNNNN-NNNNN-NL4NNN"


def test_a_folder_may_be_given_as_text(make, randomise, tmp_path):
    supernet = randomise(Supernet(make(), preset("lora-4", adapted_layers(make()))))
    folder = str(tmp_path / "adapter")
    write_peft(folder, supernet, supernet.space.extreme(largest=True))
    assert read_peft(folder, make()).config == supernet.space.extreme(largest=True)


def test_an_untrained_adapter_is_read_as_none(make, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(make(), peft.LoraConfig(target_modules=["qkv"])).save_pretrained(tmp_path)
    assert encode(read_peft(tmp_path, make()).config) == "NNNNN-NNNNN"


def drawn(space: SearchSpace, seed: int):
    rng = np.random.default_rng(seed)
    return tuple(configs[rng.integers(len(configs))] for configs in space.layer_configs)


@pytest.mark.parametrize("seed", range(4))
def test_a_subnet_comes_back_bit_for_bit_where_its_numbers_act_as_they_are_stored(make, randomise, tmp_path, seed):
    """In the `paper` form; a low-rank C is a vector in peft's format, and rounded on the way."""
    space = preset("paper-multirank", adapted_layers(make()))
    supernet = randomise(Supernet(make(), SearchSpace.of(space.layers, space.ranks, {"C": ["vector", "none"]}), "paper"))
    config = drawn(supernet.space, seed)
    imported = read_peft(write_peft(tmp_path, supernet, config), make(), space.layers)
    assert encode(imported.config) == encode(config)
    before, after = supernet.merged_state(config), imported.supernet.merged_state(config)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize("backbone", ["vit", "vit without qkv biases", "bert", "gpt2", "mobilenet"])
def test_an_adapter_read_and_written_again_is_the_same_file(make, randomise, tmp_path, backbone):
    """Also of the `normalised` form, whose scales are multiplied in and rounded once, when first written."""
    layers = adapted_layers(make(backbone))
    supernet = randomise(Supernet(make(backbone), preset("paper-multirank", layers)))
    config = drawn(supernet.space, 3)
    first = write_peft(tmp_path / "first", supernet, config)
    imported = read_peft(first, make(backbone), layers)
    second = write_peft(tmp_path / "second", imported.supernet, imported.config, imported.whole)
    before, after = load_file(first / "adapter_model.safetensors"), load_file(second / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert (first / "adapter_config.json").read_text() == (second / "adapter_config.json").read_text()


def test_a_low_rank_c_comes_back_as_the_vector_it_is(make, randomise, tmp_path):
    supernet = randomise(Supernet(make(), preset("paper", adapted_layers(make()))))
    folder = write_peft(tmp_path, supernet, decode("-".join(["NNL4NN"] * 8)))
    assert encode(read_peft(folder, make()).config) == "-".join(["NNVNN"] * 8)


def test_modules_that_an_adapter_replaces_are_named_and_part_of_the_backbone(make, randomise, tmp_path):
    supernet = randomise(Supernet(make("gpt2"), preset("paper", adapted_layers(make("gpt2")))))
    config = (LayerConfig(), decode("VVVVV")[0], *[LayerConfig()] * 6)
    imported = read_peft(write_peft(tmp_path, supernet, config), make("gpt2"))
    assert imported.whole == ("transformer.h.0.attn.c_proj",)
    before, after = supernet.merged_state(config), imported.supernet.merged_state(imported.config)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


@pytest.fixture
def refuse(make, tmp_path):
    """Changes an adapter's options and tensors, and asserts that it is refused by a reason and the backbone left as it was."""

    def check(reason: str, options=None, change=None, changed_options=None, backbone: str = "vit", layers=None) -> None:
        saved_by_stock(tmp_path, make(backbone), options or peft.LoraConfig(r=4, target_modules=["qkv"], modules_to_save=["head"]))
        fields, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
        fields.write_text(json.dumps(json.loads(fields.read_text()) | (changed_options or {})))
        if change:
            tensors = load_file(weights)
            change(tensors)
            save_file(tensors, weights)
        bare = make(backbone)
        before = deepcopy(bare.state_dict())
        with pytest.raises(ConfigInvalid, match=reason):
            read_peft(tmp_path, bare, layers)
        assert not any(isinstance(module, GLoRALayer) for module in bare.modules())
        assert all(torch.equal(value, before[name]) for name, value in bare.state_dict().items())

    return check


@pytest.mark.parametrize(
    ("reason", "options"),
    [
        ("use_dora", {"use_dora": True}),
        ("lora_bias", {"lora_bias": True}),
        ("bias = 'all'", {"bias": "all"}),
        ("bias = 'lora_only'", {"bias": "lora_only"}),
        ("init_lora_weights = 'olora'", {"init_lora_weights": "olora"}),
        ("init_lora_weights = 'pissa_niter_2'", {"init_lora_weights": "pissa_niter_2"}),
    ],
)
def test_what_stock_lora_can_and_no_subnet_can_is_refused_by_its_name(refuse, reason, options):
    refuse(reason, peft.LoraConfig(r=2, target_modules=["qkv"], **options))


@pytest.mark.parametrize(
    ("reason", "changed"),
    [
        ("layer_replication", {"layer_replication": [[0, 2]]}),
        ("target_parameters", {"target_parameters": ["blocks.0.attn.qkv.weight"]}),
        ("trainable_token_indices", {"trainable_token_indices": [1]}),
        ("velora_config", {"velora_config": {"a": 1}}),
        ("megatron_config", {"megatron_config": {"a": 1}}),
        ("use_qalora", {"use_qalora": True}),
        ("alora_invocation_tokens", {"alora_invocation_tokens": [1]}),
        ("arrow_config", {"arrow_config": {"a": 1}}),
        ("option_of_a_later_peft", {"option_of_a_later_peft": 1}),
        ("init_lora_weights = 'loftq'", {"init_lora_weights": "loftq"}),
        ("init_lora_weights = 'corda'", {"init_lora_weights": "corda"}),
        ("init_lora_weights = 'lora_ga'", {"init_lora_weights": "lora_ga"}),
        ("peft_type 'LOHA'.*LORA, GLORA", {"peft_type": "LOHA"}),
        ("r = 0", {"r": 0}),
        ("lora_alpha", {"lora_alpha": "much"}),
        ("lora_alpha", {"lora_alpha": float("inf")}),
        ("rank_pattern", {"rank_pattern": {"(": 2}}),
        (r"shape \(4, 32\)", {"rank_pattern": {"qkv": 3}}),
        ("modules_to_save = 'head'", {"modules_to_save": "head"}),
        ("target_modules is None", {"target_modules": None}),
        ("no regular expression", {"target_modules": "("}),
        ("its target_modules do not name", {"target_modules": ["fc1"]}),
        ("its target_modules do not name", {"target_modules": ["kv"]}),
        ("no tensors for 2 of its target_modules", {"target_modules": ["qkv", "fc1"]}),
        ("belong to no layer or module", {"modules_to_save": None}),
        ("norm.weight of the adapter is of shape None", {"modules_to_save": ["head", "norm"]}),
    ],
)
def test_changed_options_of_lora_are_refused_by_their_name(refuse, reason, changed):
    refuse(reason, changed_options=changed)


@pytest.mark.parametrize("changed", [{"config_A_B": "dense"}, {"config_C": "constant"}, {"config_D_E": "lora"}, {"bias": "glora_only"}])
def test_changed_options_of_glora_are_refused_by_their_name(refuse, changed):
    refuse(next(iter(changed)), peft.GloraConfig(r=2, target_modules=["qkv"]), changed_options=changed)


LAYER = "base_model.model.blocks.0.attn.qkv"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("is not finite|not finite", lambda tensors: tensors[f"{LAYER}.lora_A.weight"].fill_(float("nan"))),
        ("the options call for", lambda tensors: tensors.pop(f"{LAYER}.lora_A.weight")),
        ("the options call for", lambda tensors: tensors.update({f"{LAYER}.lora_magnitude_vector": torch.ones(96)})),
        ("does not have", lambda tensors: tensors.update({"base_model.model.blocks.7.attn.qkv.lora_A.weight": torch.ones(4, 32)})),
        ("does not begin with", lambda tensors: tensors.update({"blocks.0.attn.qkv.lora_A.weight": torch.ones(4, 32)})),
        ("shape", lambda tensors: tensors.update({f"{LAYER}.lora_B.weight": torch.ones(96, 5)})),
        ("head.bias of the adapter is of shape", lambda tensors: tensors.update({"base_model.model.head.bias": torch.ones(7)})),
        ("head.weight of the adapter.* not finite", lambda tensors: tensors["base_model.model.head.weight"].fill_(float("inf"))),
        ("'norm.weight'", lambda tensors: tensors.update({"base_model.model.norm.weight": torch.ones(32)})),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_their_name(refuse, reason, change):
    refuse(reason, change=change)


def test_a_buffer_of_zeros_that_is_not_zero_is_refused(refuse):
    def change(tensors) -> None:
        tensors[f"{LAYER}.glora_A.zeros"][0, 0] = 1

    refuse("glora_A.zeros", peft.GloraConfig(r=2, target_modules=["qkv"], config_A_B="none"), change)


def test_an_adapter_of_an_embedding_is_refused(refuse):
    refuse("embedding", peft.LoraConfig(r=2, target_modules=["query", "word_embeddings"]), backbone="bert")


def test_a_lora_of_a_grouped_convolution_is_refused(refuse):
    refuse("not exact", peft.LoraConfig(r=16, target_modules=["blocks.0.0.conv_dw"]), backbone="mobilenet")


def test_an_adapter_of_layers_outside_the_given_ones_is_refused(refuse):
    refuse("not among the 1", layers=[LayerShape("blocks.0.attn.qkv", 32, 96)])


def test_given_layers_that_are_not_in_the_backbone_are_refused(refuse):
    refuse("'blocks.0.attn.qkv' of the layers given", layers=[LayerShape("blocks.0.attn.qkv", 32, 97)])


def test_a_layer_whose_weight_is_used_without_calling_it_is_refused(tmp_path):
    def beit() -> nn.Module:
        torch.manual_seed(0)
        sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
        return timm.create_model("beit_base_patch16_224", num_classes=3, **sizes).eval()

    saved_by_stock(tmp_path, beit(), peft.LoraConfig(r=2, target_modules=["qkv"]))
    with pytest.raises(ConfigInvalid, match="no layer that can be adapted"):
        read_peft(tmp_path, beit())


def test_a_backbone_that_is_adapted_already_is_refused(make, tmp_path):
    with pytest.raises(ConfigInvalid, match="adapted layers already"):
        read_peft(tmp_path, Supernet(make(), SearchSpace(adapted_layers(make()))).backbone)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_config.json", None),
        ("adapter_config.json", b"{"),
        ("adapter_config.json", b"[]"),
        ("adapter_config.json", b"\xff\xfe"),
        ("adapter_model.safetensors", None),
        ("adapter_model.safetensors", b"junk"),
    ],
)
def test_a_folder_that_is_no_adapter_is_refused_by_its_file(make, tmp_path, file, content):
    saved_by_stock(tmp_path, make(), peft.LoraConfig(target_modules=["qkv"]))
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ConfigInvalid, match=file):
        read_peft(tmp_path, make())
