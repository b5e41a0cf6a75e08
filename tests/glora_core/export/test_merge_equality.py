"""Merged and unmerged networks compute the same: on vision transformers, convolutional networks and language models, in four precisions.

Random subnets pass verification, whose bounds are derived, and merges that are wrong in ways that happen do not.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from types import MappingProxyType
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from glora_core.backbones import Inputs, adapted_layers
from glora_core.configs import NONE, TENSORS, LayerConfig, SubnetConfig, parse_layer
from glora_core.errors import ExportMismatch
from glora_core.evaluation import give_biases
from glora_core.export.verify import BOUND, Verification, verify
from glora_core.layers import GLoRALayer, dense_bias, dense_weight
from glora_core.sampling import stream
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Merged = tuple[Tensor, Tensor | None]
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())


def timm_model(name: str, **arguments: Any) -> nn.Module:
    return timm.create_model(name, num_classes=3, **arguments)


def transformers_model(kind: str, **arguments: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(kind, vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2, **arguments)
    factory = transformers.AutoModelForSequenceClassification if kind == "bert" else transformers.AutoModelForCausalLM
    return factory.from_config(config)


SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16}
MODELS: MappingProxyType[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "ViT": lambda: timm_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2),
        "Swin": lambda: timm_model(
            "swin_tiny_patch4_window7_224", img_size=32, embed_dim=16, depths=(1, 2), num_heads=(1, 2), window_size=4
        ),
        "ConvNeXt": lambda: timm_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 12, 16, 24)),
        "MobileNetV2": lambda: timm_model("mobilenetv2_035"),
        "BERT": lambda: transformers_model("bert", num_labels=3, **SIZES),
        "GPT-2": lambda: transformers_model("gpt2", n_embd=16, n_layer=2, n_head=2, n_positions=16),
        "Llama": lambda: transformers_model("llama", num_key_value_heads=1, **SIZES),
    }
)


@torch.no_grad()
def supernet_of(kind: str, dtype: torch.dtype = torch.float32, new_biases: bool = False) -> Supernet:
    """A supernet whose every number is random, as if the backbone had been pretrained and the supernet trained."""
    torch.manual_seed(0)
    model = MODELS[kind]()
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.normal_() if name.endswith("mean") else buffer.uniform_(0.5, 2.0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(std=0.1)
        if name.endswith("gamma"):  # of a fresh ConvNeXt block 1e-6, which would hide what is behind it
            parameter.fill_(0.5)
    space = SearchSpace(adapted_layers(model), ranks=(1, 4), new_biases=new_biases)
    supernet = Supernet(model.to(dtype), space)
    generator = torch.Generator().manual_seed(1)
    for _, numbers in supernet.trainable():
        numbers.normal_(std=0.1, generator=generator)
    return supernet.eval()


def examples_of(kind: str) -> Inputs:
    generator = torch.Generator().manual_seed(2)
    if kind in ("BERT", "GPT-2", "Llama"):
        tokens = torch.randint(3, 50, (8, 10), generator=generator)
        mask = (torch.arange(10) < torch.tensor([10, 9, 8, 10, 6, 5, 4, 10])[:, None]).long()
        return {"input_ids": tokens, "attention_mask": mask}
    return torch.randn(8, 3, 32, 32, generator=generator)


def random_config(supernet: Supernet, seed: int) -> SubnetConfig:
    rng = stream(seed)
    return tuple(configs[rng.integers(len(configs))] for configs in supernet.space.layer_configs)


def merge(supernet: Supernet, config: SubnetConfig, dtype: torch.dtype | None = None) -> nn.Module:
    """A plain network of the merged weights, in a precision."""
    plain, state = supernet.bare(), supernet.merged_state(config, dtype)
    give_biases(plain, state)
    plain.load_state_dict(state, assign=True)  # not plain.to(dtype), which would round the rotary frequencies of a Llama too
    return plain


def passes(supernet: Supernet, kind: str, config: SubnetConfig, dtype: torch.dtype) -> Verification:
    return verify(supernet, merge(supernet, config, dtype), config, examples_of(kind))


@every_dtype
@pytest.mark.parametrize("kind", MODELS)
def test_random_subnets_of_a_float32_backbone_export_within_the_bounds(kind, dtype):
    supernet = supernet_of(kind)
    for seed in range(3):
        found = passes(supernet, kind, random_config(supernet, seed), dtype)
        assert 0 < found.worst_ratio <= 1
        assert found.structural_error < 1e-12


@every_dtype
@pytest.mark.parametrize("kind", MODELS)
def test_random_subnets_export_within_the_bounds_in_the_precision_of_the_backbone(kind, dtype):
    supernet = supernet_of(kind, dtype)
    found = passes(supernet, kind, random_config(supernet, 3), dtype)
    assert 0 < found.worst_ratio <= 1
    assert found.structural_error < 1e-12


@pytest.mark.parametrize("kind", ["MobileNetV2", "Llama", "Swin"])
def test_gained_biases_and_batch_norms_that_take_them_up_are_within_the_bounds(kind):
    supernet = supernet_of(kind, new_biases=True)
    assert passes(supernet, kind, supernet.space.extreme(largest=True), torch.float32).worst_ratio <= 1


@pytest.mark.parametrize("kind", MODELS)
def test_the_untouched_backbone_merges_without_any_error(kind):
    supernet = supernet_of(kind)
    found = passes(supernet, kind, supernet.space.extreme(largest=False), torch.float32)
    assert (found.merge_error, found.worst_ratio, found.structural_error) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("dtype", "places"), [(torch.float64, 2), (torch.float32, 2), (torch.bfloat16, 1), (torch.float16, 1)])
def test_the_bound_is_at_most_a_few_decimal_places_above_what_is_observed(dtype, places):
    supernet = supernet_of("ViT", dtype)
    assert passes(supernet, "ViT", random_config(supernet, 0), dtype).worst_ratio > 10.0**-places


@every_dtype
def test_logits_differ_by_a_few_roundings_of_the_precision(dtype):
    supernet = supernet_of("ViT", dtype)
    found = passes(supernet, "ViT", random_config(supernet, 0), dtype)
    assert found.merge_error < 32 * torch.finfo(dtype).eps


def full_config(supernet: Supernet) -> SubnetConfig:
    """A config under which every support tensor of every layer acts, as far as it can."""
    return tuple(
        LayerConfig(*(max(choices[tensor], key=lambda choice: (choice.kind == "vector", choice.rank)) for tensor in TENSORS))
        for choices in supernet.space.choices
    )


def refused(supernet: Supernet, kind: str, plain: nn.Module, match: str) -> None:
    with pytest.raises(ExportMismatch, match=match):
        verify(supernet, plain, full_config(supernet), examples_of(kind))


def patch_merge(monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Callable[[LayerConfig], Merged], LayerConfig], Merged]) -> None:
    """Every merge is wrong, so that the merged numbers are what merging says and only what the layers compute can tell."""
    genuine = GLoRALayer.merged

    def merged(layer: GLoRALayer, config: LayerConfig, dtype: torch.dtype | None = None) -> Merged:
        weight, bias = wrong(lambda other: genuine(layer, other, torch.float64), config)
        dtype = dtype or layer.weight.dtype
        return weight.to(dtype), None if bias is None else bias.to(dtype)

    monkeypatch.setattr(GLoRALayer, "merged", merged)


@pytest.mark.parametrize(("kind", "tensor"), [*product(["ViT", "ConvNeXt", "GPT-2"], TENSORS), *product(["MobileNetV2"], "ABCE")])
def test_a_merge_that_forgets_a_tensor_is_refused_by_what_the_layers_compute(monkeypatch, kind, tensor):
    supernet = supernet_of(kind)
    patch_merge(monkeypatch, lambda merged, config: merged(replace(config, **{tensor: NONE})))
    refused(supernet, kind, merge(supernet, full_config(supernet)), r"in float64, layer '.*differ by .*the bound is")


def double_add(merged: Callable[[LayerConfig], Merged], config: LayerConfig) -> Merged:
    weight, bias = merged(config)
    return 2 * weight - merged(LayerConfig())[0], bias


def wrong_sign(merged: Callable[[LayerConfig], Merged], config: LayerConfig) -> Merged:
    weight, bias = merged(config)
    return weight - 2 * (merged(replace(config, B=NONE))[0] - merged(LayerConfig())[0]), bias


def rows_reversed(merged: Callable[[LayerConfig], Merged], config: LayerConfig) -> Merged:
    weight, bias = merged(config)
    return weight.flip(0), bias


@pytest.mark.parametrize("wrong", [double_add, wrong_sign, rows_reversed])
def test_a_wrong_formula_is_refused_by_what_the_layers_compute(monkeypatch, wrong):
    supernet = supernet_of("ViT")
    patch_merge(monkeypatch, wrong)
    refused(supernet, "ViT", merge(supernet, full_config(supernet)), r"in float64, layer '.*differ by .*the bound is")


def in_the_precision_itself(layer: GLoRALayer, config: LayerConfig, dtype: torch.dtype) -> Merged:
    """The merge as most libraries do it: every step in the precision of the result."""
    A, B, C, D, E = (layer.support.acting(tensor, config[tensor], dtype) for tensor in TENSORS)
    weight, bias = layer.matrix(layer.weight).to(dtype), None if layer.bias is None else layer.bias.to(dtype)
    return layer.layout(dense_weight(weight, A, B)), dense_bias(weight, bias, C, D, E)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_a_merge_in_the_precision_of_the_result_is_refused(dtype):
    supernet = supernet_of("ViT")
    plain = merge(supernet, full_config(supernet), dtype)
    (shape, layer), config = next(iter(supernet.layers())), full_config(supernet)[0]
    plain.get_submodule(shape.name).weight.copy_(in_the_precision_itself(layer, config, dtype)[0])
    refused(supernet, "ViT", plain, rf"tensor '{shape.name}\.weight'")


@torch.no_grad()
def test_a_backbone_recovered_from_its_merged_weights_by_division_is_refused():
    supernet = supernet_of("ViT")
    plain, (shape, layer) = merge(supernet, full_config(supernet)), next(iter(supernet.layers()))
    row = 1 + layer.support.acting("A", parse_layer("VNNNN").A)
    weight = plain.get_submodule(shape.name).weight
    weight.copy_(weight / row * row)
    refused(supernet, "ViT", plain, rf"tensor '{shape.name}\.weight'")


@torch.no_grad()
def test_a_batch_norm_that_takes_up_a_bias_with_the_wrong_sign_is_refused(monkeypatch):
    supernet, genuine = supernet_of("MobileNetV2"), Supernet.merged_layer

    def wrong(self: Supernet, index: int, config: SubnetConfig, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        name = f"{self.space.layers[index].absorber}.running_mean"
        own, right = self.backbone.get_buffer(name).double(), genuine(self, index, config, torch.float64)[name]
        return genuine(self, index, config, dtype) | {name: (2 * own - right).to(dtype or torch.float32)}

    monkeypatch.setattr(Supernet, "merged_layer", wrong)
    refused(supernet, "MobileNetV2", merge(supernet, full_config(supernet)), r"in float64, layer '.*differ by")


@torch.no_grad()
@pytest.mark.parametrize("name", ["cls_token", "norm.bias", "head.weight", "blocks.1.mlp.fc2.bias"])
def test_a_number_changed_by_two_roundings_is_refused_by_its_name(name):
    supernet = supernet_of("ViT")
    plain = merge(supernet, full_config(supernet))
    plain.state_dict()[name].mul_(1 + 2 * torch.finfo(torch.float32).eps)
    refused(supernet, "ViT", plain, f"tensor '{name}'")


@torch.no_grad()
def test_a_network_that_computes_otherwise_with_right_numbers_is_refused_by_its_logits():
    supernet = supernet_of("ViT")
    plain = merge(supernet, full_config(supernet))
    plain.norm.eps *= 1.01
    refused(supernet, "ViT", plain, f"logits differ by .*the bound is {BOUND:.3g}")


@torch.no_grad()
def test_a_merged_number_beyond_float16_is_refused_with_the_figure():
    supernet = supernet_of("ViT")
    next(iter(supernet.layers()))[1].weight.mul_(1e7)
    with pytest.raises(ExportMismatch, match=r"magnitude \d.* is beyond torch\.float16, whose largest number is 6\.55e\+04"):
        merge(supernet, full_config(supernet), torch.float16)


@torch.no_grad()
def test_an_output_beyond_float16_is_refused_with_layer_difference_and_bound():
    supernet = supernet_of("ViT")
    _, layer = next(iter(supernet.layers()))
    layer.weight.mul_(6e4 / layer.merged(full_config(supernet)[0])[0].abs().max())
    refused(supernet, "ViT", merge(supernet, full_config(supernet), torch.float16), r"in torch\.float16, layer '.*differ by (inf|nan); the")


def test_verification_leaves_the_networks_as_they_were():
    supernet = supernet_of("ViT")
    plain = merge(supernet, full_config(supernet))
    before = [{name: value.clone() for name, value in net.state_dict().items()} for net in (supernet, plain)]
    verify(supernet, plain, full_config(supernet), examples_of("ViT"))
    for net, state in zip((supernet, plain), before, strict=True):
        assert all(torch.equal(value, state[name]) and value.dtype == state[name].dtype for name, value in net.state_dict().items())
        assert not any(module._forward_hooks for module in net.modules())
