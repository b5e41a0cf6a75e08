"""Which layers of a model adapt: found by one forward pass, for any architecture, with what takes up the biases they lack."""

import re

import pytest
import timm
import torch
from torch import Tensor, nn

from glora_core.backbones import adapted_layers, classifier
from glora_core.errors import BackboneUnsupported, ConfigInvalid
from glora_core.space import LayerShape

FEATURES = 4


class Toy(nn.Module):
    """An image model as far as its layers are looked for: subclasses say what is between its stem and its head."""

    pretrained_cfg = {"input_size": (3, 8, 8)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, FEATURES, 1), nn.Linear(FEATURES, 2)
        self.conv, self.norm = nn.Conv2d(FEATURES, FEATURES, 1, bias=False), nn.BatchNorm2d(FEATURES)

    def get_classifier(self) -> nn.Module:
        return self.head

    def between(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.stem(x)).mean((2, 3)))


def absorbers(model: nn.Module) -> dict[str, str]:
    """The batch norm of each adapted layer."""
    return {layer.name: layer.absorber for layer in adapted_layers(model)}


def names(model: nn.Module, *patterns: str) -> list[str]:
    return [layer.name for layer in adapted_layers(model, patterns)]


VIT_LAYERS = tuple(
    LayerShape(f"blocks.{block}.{name}", *size)
    for block in range(2)
    for name, size in {"attn.qkv": (32, 96), "attn.proj": (32, 32), "mlp.fc1": (32, 128), "mlp.fc2": (128, 32)}.items()
)


def test_all_linear_layers_but_the_classifier_adapt_in_the_order_of_modules(make_vit):
    assert adapted_layers(make_vit()) == VIT_LAYERS


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_adapted_layers_do_not_depend_on_the_head(make_vit, num_classes):
    assert adapted_layers(make_vit(num_classes=num_classes)) == VIT_LAYERS


def test_the_adapted_layers_are_found_on_the_meta_device_too(make_vit):
    assert adapted_layers(make_vit().to("meta")) == VIT_LAYERS


def test_looking_for_layers_leaves_no_hooks_and_the_mode_as_it_was(make_vit):
    model = make_vit().train()
    adapted_layers(model)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_looking_for_layers_leaves_the_statistics_of_batch_norms_as_they_were(make_model):
    model = make_model("mobilenetv2").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted_layers(model)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("name", "stem", "first", "last", "count"),
    [
        ("vit", "patch_embed.proj", "blocks.0.attn.qkv", "blocks.1.mlp.fc2", 8),
        ("swin", "patch_embed.proj", "layers.0.blocks.0.attn.qkv", "layers.1.blocks.1.mlp.fc2", 13),
        ("convnext", "stem.0", "stages.0.blocks.0.conv_dw", "stages.3.blocks.0.mlp.fc2", 15),
        ("mobilenetv2", "conv_stem", "blocks.0.0.conv_dw", "conv_head", 51),
        ("efficientnet", "conv_stem", "blocks.0.0.conv", "conv_head", 16),
        ("resnet", "conv1.0", "conv1.3", "layer4.0.downsample.1", 14),
    ],
)
def test_all_but_the_stem_and_the_head_adapt_by_default(make_model, name, stem, first, last, count):
    model = make_model(name)
    found = names(model)
    assert (found[0], found[-1], len(found)) == (first, last, count)
    everything = {n for n, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    head = {n for n, module in model.named_modules() if module is classifier(model)}
    assert everything - set(found) == {stem} | head


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv2_050"])
def test_every_layer_of_a_network_of_convolutions_and_batch_norms_finds_its_own(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=3)
    layers = adapted_layers(model)
    assert not any(layer.bias for layer in layers)
    assert len({layer.absorber for layer in layers} - {""}) == len(layers)
    assert all(model.get_submodule(layer.absorber).num_features == layer.out_features for layer in layers)


def test_layers_with_a_bias_of_their_own_have_no_absorber(make_model):
    biased = [layer for layer in adapted_layers(make_model("efficientnet")) if layer.bias]
    assert {layer.name.rsplit(".", 1)[-1] for layer in biased} == {"conv_reduce", "conv_expand"}
    assert {layer.absorber for layer in biased} == {""}


def test_a_linear_layer_without_bias_that_no_batch_norm_follows_has_no_absorber(make_model):
    (reduction,) = [layer for layer in adapted_layers(make_model("swin")) if not layer.bias]
    assert reduction == LayerShape("layers.1.downsample.reduction", 64, 32, bias=False, absorber="")


def test_the_size_of_a_convolution_is_what_each_output_sees(make_model):
    by_name = {layer.name: layer for layer in adapted_layers(make_model("mobilenetv2"))}
    assert by_name["blocks.0.0.conv_dw"] == LayerShape("blocks.0.0.conv_dw", 9, 16, False, "blocks.0.0.bn1")
    assert by_name["conv_head"] == LayerShape("conv_head", 112, 1280, False, "bn2")


def test_the_batch_norm_that_reads_a_layers_output_is_its_absorber():
    assert absorbers(Toy()) == {"conv": "norm"}


class Twice(Toy):
    """The batch norm normalises two layers' outputs."""

    def between(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.norm(x)


class TwoLayers(Toy):
    """Two layers share one batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(FEATURES, FEATURES, 1, bias=False)

    def between(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.norm(self.other(x))


class CalledTwice(Toy):
    """The layer is called twice, and only one of its outputs is normalised."""

    def between(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.conv(x)))


class Between(Toy):
    """Something is done to the output before it is normalised."""

    def between(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).relu())


class NoStatistics(Toy):
    """The batch norm keeps no running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(FEATURES, track_running_stats=False)


class GroupNorm(Toy):
    """The norm that follows is another one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, FEATURES)


class Residual(Toy):
    """The output is also added to what the batch norm gives."""

    def between(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class ReadByModule(Toy):
    """The output is also read by another module, before the batch norm reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sigmoid()

    def between(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.gate(y) * self.norm(y)


class TwoNorms(Toy):
    """Two batch norms read the same output."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.BatchNorm2d(FEATURES)

    def between(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + self.second(y)


class InPlace(Toy):
    """The output is changed in place before it is normalised."""

    def between(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).relu_())


class InPlaceScaled(Toy):
    """The output is doubled in place before it is normalised."""

    def between(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y *= 2
        return self.norm(y)


@pytest.mark.parametrize("model", [Twice, TwoLayers, CalledTwice, Between, NoStatistics, GroupNorm], ids=lambda model: model.__name__)
def test_a_batch_norm_that_cannot_take_up_a_bias_is_no_absorber(model):
    assert set(absorbers(model()).values()) == {""}


@pytest.mark.parametrize("model", [Residual, ReadByModule, TwoNorms, InPlace, InPlaceScaled], ids=lambda model: model.__name__)
def test_a_batch_norm_that_is_not_the_only_reader_of_an_unchanged_output_is_no_absorber(model):
    assert set(absorbers(model()).values()) == {""}


def test_the_stem_adapts_where_a_pattern_names_it(make_model):
    assert names(make_model("mobilenetv2"), "conv_stem", "blocks.0.*") == ["conv_stem", "blocks.0.0.conv_dw", "blocks.0.0.conv_pw"]


def test_the_head_never_adapts_whatever_the_pattern(make_vit):
    assert names(make_vit(), "*") == ["patch_embed.proj", *(layer.name for layer in VIT_LAYERS)]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("blocks.1.*",), [layer.name for layer in VIT_LAYERS[4:]]),
        (("*.qkv",), ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]),
        (("*.fc2", "*.fc1"), ["blocks.0.mlp.fc1", "blocks.0.mlp.fc2", "blocks.1.mlp.fc1", "blocks.1.mlp.fc2"]),
        (("blocks.[0]*.proj", "*.proj"), ["patch_embed.proj", "blocks.0.attn.proj", "blocks.1.attn.proj"]),
    ],
    ids=str,
)
def test_patterns_choose_the_layers_that_adapt_in_the_models_order(make_vit, patterns, expected):
    assert names(make_vit(), *patterns) == expected


@pytest.mark.parametrize("pattern", ["blocks.9.*", "head", "norm", "attn.qkv", "Blocks.*"])
def test_a_pattern_that_matches_no_adaptable_layer_is_refused_with_examples(make_vit, pattern):
    expected = re.escape(f"layers {pattern!r} match no layer that can be adapted; there are layers such as 'patch_embed.proj'")
    with pytest.raises(ConfigInvalid, match=expected + ".*'blocks.1.mlp.fc2'"):
        names(make_vit(), "blocks.0.*", pattern)


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "eva02_tiny_patch14_224"])
def test_a_layer_whose_weight_the_model_uses_without_calling_it_does_not_adapt(name):
    small = {"img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 3}
    model = timm.create_model(name, **small)
    assert isinstance(model.blocks[0].attn.qkv, nn.Linear)
    assert "blocks.0.attn.qkv" not in names(model)
    assert "blocks.0.attn.proj" in names(model)


class Tied(Toy):
    """Two more convolutions, which subclasses tie to `conv`."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.other = nn.Conv2d(FEATURES, FEATURES, 1), nn.Conv2d(FEATURES, FEATURES, 1, bias=False)

    def between(self, x: Tensor) -> Tensor:
        return self.other(self.plain(self.conv(x)))


class TwoNames(Tied):
    """One module is called by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.other = self.conv


class SharedWeight(Tied):
    """Two modules have one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.other.weight = self.conv.weight


class WeightOfTheModel(Tied):
    """The model has a layer's weight as its own too."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.other = self.conv.weight, nn.Identity()


class UsedDirectly(Tied):
    """A layer is called, and its weight is also used without it."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Identity()

    def between(self, x: Tensor) -> Tensor:
        return super().between(x) + nn.functional.conv2d(x, self.conv.weight)


class UsedBefore(UsedDirectly):
    """The same, before it is called and after another module was."""

    def between(self, x: Tensor) -> Tensor:
        return Tied.between(self, nn.functional.conv2d(self.norm(x), self.conv.weight))


@pytest.mark.parametrize("model", [TwoNames, SharedWeight, WeightOfTheModel, UsedDirectly, UsedBefore], ids=lambda model: model.__name__)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_layer_that_is_tied_to_something_else_does_not_adapt(model, device):
    with torch.device(device):
        made = model()
    assert names(made) == ["plain"]
    with pytest.raises(ConfigInvalid, match="match no layer that can be adapted"):
        names(made, "conv")


def test_a_layer_that_is_called_several_times_by_one_name_adapts():
    assert names(CalledTwice()) == ["conv"]


def test_a_models_own_attention_of_torch_keeps_its_projections():
    class Attention(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(FEATURES, 2, batch_first=True)

        def between(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).transpose(1, 2)
            return self.conv(self.attention(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape))

    assert names(Attention()) == ["conv"]


@pytest.mark.parametrize("name", ["resnetv2_50x1_bit", "nf_resnet26"])
def test_a_network_of_standardised_convolutions_has_nothing_to_adapt(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=3)
    with pytest.raises(BackboneUnsupported, match="has no linear layer or convolution to adapt"):
        adapted_layers(model)


def test_a_pre_activation_network_takes_up_biases_only_where_a_norm_reads_the_layer_alone():
    with torch.device("meta"):
        model = timm.create_model("resnetv2_50", num_classes=3)
    found = absorbers(model)
    assert found["stages.0.blocks.0.conv1"] == "stages.0.blocks.0.norm2"
    assert found["stages.0.blocks.0.conv3"] == ""


def test_a_model_of_nothing_but_its_head_is_refused():
    class Bare(Toy):
        def between(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(BackboneUnsupported, match="Bare has no linear layer or convolution to adapt"):
        adapted_layers(Bare())


def test_a_model_that_cannot_be_run_is_refused_by_its_error():
    class Broken(Toy):
        def between(self, x: Tensor) -> Tensor:
            raise RuntimeError("sizes differ")

    model = Broken()
    with pytest.raises(BackboneUnsupported, match="Broken cannot be run to find its layers: sizes differ"):
        adapted_layers(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_with_several_classifiers_is_refused():
    with pytest.raises(BackboneUnsupported, match="several classifiers"):
        adapted_layers(timm.create_model("deit_tiny_distilled_patch16_224"))
