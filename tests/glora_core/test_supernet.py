"""The supernet: what trains, what never changes, and what a merge gives back."""

import pickle
from copy import deepcopy
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from glora_core.backbones import adapted_layers
from glora_core.configs import SubnetConfig, decode
from glora_core.errors import ConfigInvalid
from glora_core.evaluation import give_biases
from glora_core.layers import GLoRALinear
from glora_core.methods import method_config
from glora_core.presets import preset
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import LayerShape, SearchSpace
from glora_core.supernet import Supernet

FORMS = ("normalised", "paper")


def random_config(space: SearchSpace, seed: int) -> SubnetConfig:
    return FeasibleSampler(space, space.maximum).sample(stream(seed))


def frozen(supernet: Supernet) -> dict[str, torch.Tensor]:
    """Copies of every tensor of the backbone that must never change."""
    plain = {name: p.detach().clone() for name, p in supernet.named_parameters() if not p.requires_grad}
    buffers = {name: b.clone() for name, b in supernet.named_buffers()}
    return plain | buffers


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_only_support_tensors_and_the_head_train(trained):
    names = [name for name, _ in trained.trainable()]
    assert all(".support." in name or name.startswith("backbone.head.") for name in names)
    assert {"backbone.head.weight", "backbone.head.bias", "backbone.blocks.1.mlp.fc2.support.A_down_0"} <= set(names)
    assert [name for name, p in trained.named_parameters() if p.requires_grad] == names


def test_every_layer_of_the_space_is_adapted_and_the_head_is_not(trained, space):
    adapted = [name.removeprefix("backbone.") for name, module in trained.named_modules() if isinstance(module, GLoRALinear)]
    assert adapted == [layer.name for layer in space.layers]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(5))
def test_every_subnet_computes_what_the_backbone_computes_before_training(make_vit, space, images, form, seed):
    supernet, plain = Supernet(make_vit(), space, form).double(), make_vit().double()
    plain.head = supernet.backbone.head
    supernet.set_config(random_config(space, seed))
    torch.testing.assert_close(supernet(images.double()), plain(images.double()), rtol=1e-10, atol=1e-10)


def test_two_configs_of_a_trained_supernet_compute_different_things(trained, space, images):
    outputs = []
    for seed in (0, 1):
        trained.set_config(random_config(space, seed))
        outputs.append(trained(images))
    assert not torch.allclose(*outputs, rtol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_the_frozen_weights_survive_training_steps_and_merges_bit_for_bit(make_vit, space, images, form):
    supernet = Supernet(make_vit(), space, form)
    before, start = frozen(supernet), supernet.trainable_state()
    optimizer = torch.optim.AdamW([p for _, p in supernet.trainable()], lr=0.1)
    for seed in range(3):
        supernet.set_config(random_config(space, seed))
        supernet(images).square().sum().backward()
        optimizer.step()
        for value in supernet.merged_state(random_config(space, seed)).values():
            value.zero_()
    assert equal(frozen(supernet), before)
    assert not equal(supernet.trainable_state(), start)


def test_a_saved_state_read_by_another_supernet_gives_the_same_outputs(trained, make_vit, space, images):
    other = Supernet(make_vit(), space, seed=99)
    other.load_trainable_state(trained.trainable_state())
    config = random_config(space, 3)
    trained.set_config(config)
    other.set_config(config)
    assert equal(other.trainable_state(), trained.trainable_state())
    assert torch.equal(other(images), trained(images))


def test_a_saved_state_is_a_copy_that_further_training_does_not_touch(trained):
    state = trained.trainable_state()
    before = {name: value.clone() for name, value in state.items()}
    with torch.no_grad():
        for _, parameter in trained.trainable():
            parameter.add_(1)
    assert equal(state, before)


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_a_state_of_another_supernet_is_refused_and_changes_nothing(trained, change):
    before = trained.trainable_state()
    state = {name: torch.zeros_like(value) for name, value in before.items()}
    if change == "missing":
        del state["backbone.head.bias"]
    elif change == "unexpected":
        state["stranger"] = torch.zeros(1)
    else:
        state["backbone.head.bias"] = torch.zeros(7)
    with pytest.raises(ConfigInvalid):
        trained.load_trainable_state(state)
    assert equal(trained.trainable_state(), before)


@pytest.mark.parametrize("text", ["NNNNN", "-".join(["L2NNNN"] * 8), "-".join(["NNNNN"] * 9)])
def test_a_config_from_outside_the_space_is_refused_and_the_current_one_stays(trained, space, images, text):
    trained.set_config(random_config(space, 1))
    before = trained(images)
    with pytest.raises(ConfigInvalid):
        trained.set_config(decode(text))
    assert torch.equal(trained(images), before)


@pytest.mark.parametrize(
    "layer", [LayerShape("blocks.0.nothing", 32, 96), LayerShape("blocks.0.norm1", 32, 32), LayerShape("blocks.0.attn.qkv", 32, 95)]
)
def test_a_space_over_a_layer_that_the_backbone_lacks_is_refused_by_name(make_vit, layer):
    with pytest.raises(ConfigInvalid, match=layer.name):
        Supernet(make_vit(), SearchSpace((layer,)))


def test_a_supernet_stays_on_its_backbones_device_where_the_very_first_layer_adapts():
    with torch.device("meta"):
        backbone = timm.create_model("test_resnet", num_classes=3)
    supernet = Supernet(backbone, SearchSpace(adapted_layers(backbone, ("conv1*",))))
    assert {tensor.device.type for tensor in (*supernet.parameters(), *supernet.buffers())} == {"meta"}


def test_an_unknown_form_of_entanglement_is_refused(make_vit, space):
    with pytest.raises(ConfigInvalid, match="normalised"):
        Supernet(make_vit(), space, "loose")


def test_equal_seeds_give_equal_initial_values_and_others_do_not(make_vit, space):
    first, again, other = (Supernet(make_vit(), space, seed=seed).trainable_state() for seed in (4, 4, 5))
    assert equal(first, again)
    assert not torch.equal(first["backbone.head.weight"], other["backbone.head.weight"])
    name = "backbone.blocks.0.attn.qkv.support.A_up_0"
    assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(6))
def test_merged_weights_in_a_plain_model_give_the_subnets_logits(make_vit, space, randomise, images, form, seed):
    supernet, plain, config = randomise(Supernet(make_vit(), space, form)).eval(), make_vit(seed=7), random_config(space, seed)
    plain.load_state_dict(supernet.merged_state(config))
    supernet.set_config(config)
    merged, unmerged = plain(images), supernet(images)
    # eight layers in sequence, each a dot product of at most 128 terms: a rounding of eps per term and layer
    tolerance = 8 * 128 * torch.finfo(torch.float32).eps * float(unmerged.detach().abs().max())
    torch.testing.assert_close(merged, unmerged, rtol=0, atol=tolerance)


@pytest.mark.parametrize("seed", range(3))
def test_merged_weights_give_the_subnets_logits_in_float64_nearly_exactly(make_vit, space, randomise, images, seed):
    supernet, plain, config = randomise(Supernet(make_vit(), space)).double().eval(), make_vit().double(), random_config(space, seed)
    plain.load_state_dict(supernet.merged_state(config))
    supernet.set_config(config)
    torch.testing.assert_close(plain(images.double()), supernet(images.double()), rtol=1e-11, atol=1e-11)


def test_merged_state_has_exactly_the_keys_of_the_plain_architecture(trained, make_vit, space):
    assert trained.merged_state(random_config(space, 0)).keys() == make_vit().state_dict().keys()


def test_a_linear_probe_merges_to_the_backbones_own_weights(trained, make_vit, space):
    merged = trained.merged_state(method_config(space, "linear-probe"))
    bare = {name: value for name, value in make_vit().state_dict().items() if not name.startswith("head.")}
    assert all(torch.equal(merged[name], value) for name, value in bare.items())


def test_merged_state_shares_no_memory_with_the_supernet(trained, space, images):
    trained.set_config(random_config(space, 0))
    before = trained(images)
    for value in trained.merged_state(random_config(space, 0)).values():
        value.fill_(3.0)
    assert torch.equal(trained(images), before)


def test_a_layer_without_a_bias_gains_one_only_where_C_D_or_E_asks_for_it(make_vit, randomise):
    layers = [LayerShape(f"blocks.{block}.attn.qkv", 32, 96, bias=False) for block in (0, 1)]
    supernet = randomise(Supernet(make_vit(qkv_bias=False), SearchSpace.of(layers, new_biases=True)))
    merged = supernet.merged_state(decode("L4L4NNN-NNNNS"))
    assert "blocks.0.attn.qkv.bias" not in merged
    assert merged["blocks.1.attn.qkv.bias"].shape == (96,)


def test_a_gained_bias_takes_part_in_the_plain_models_logits(make_vit, randomise, images):
    space = SearchSpace.of([LayerShape("blocks.0.attn.qkv", 32, 96, bias=False)], new_biases=True)
    supernet, plain = randomise(Supernet(make_vit(qkv_bias=False), space)).eval(), make_vit(qkv_bias=False)
    config = decode("NNVNV")
    give_biases(plain, supernet.merged_state(config))
    plain.load_state_dict(supernet.merged_state(config))
    supernet.set_config(config)
    torch.testing.assert_close(plain(images), supernet(images), rtol=1e-4, atol=1e-4)


def test_a_network_that_asks_a_layer_for_its_kernel_size_runs_and_so_do_its_copies():
    small = {"depths": (1, 1), "embed_dims": (16, 32), "num_heads": (2, 2), "window_size": 4, "num_classes": 3}
    backbone, images = timm.create_model("davit_tiny", **small).eval(), torch.randn(1, 3, 32, 32)
    expected, supernet = backbone.forward_features(images), Supernet(backbone, SearchSpace(adapted_layers(backbone)))
    for copy in (supernet, deepcopy(supernet), pickle.loads(pickle.dumps(supernet))):
        torch.testing.assert_close(copy.backbone.forward_features(images), expected)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = next(supernet.layers())[1].nonsense


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "eva02_tiny_patch14_224"])
def test_every_adapted_layer_of_other_transformers_receives_gradients(name):
    import timm

    from glora_core.backbones import adapted_layers

    torch.manual_seed(0)
    small = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 3}
    backbone: nn.Module = timm.create_model(name, **small)
    supernet = Supernet(backbone, SearchSpace(adapted_layers(backbone)))
    supernet.set_config(method_config(supernet.space, "ssf"))
    supernet(torch.randn(2, 3, 16, 16)).square().sum().backward()
    gradients = {n: p.grad for n, p in supernet.named_parameters() if n.endswith("support.A_vector")}
    assert [name for name, gradient in gradients.items() if gradient is None] == []


def other_layers(space, **changes):
    return SearchSpace((*space.layers[:-1], replace(space.layers[-1], **changes)))


@pytest.mark.parametrize(
    "changes", [{"out_features": 99}, {"name": "blocks.9"}, {"name": "blocks.0.attn.qkv", "in_features": 32, "out_features": 96}]
)
def test_a_space_that_does_not_fit_leaves_the_backbone_as_it_was(make_vit, space, changes):
    model = make_vit()
    with pytest.raises(ConfigInvalid, match="of this backbone"):
        Supernet(model, other_layers(space, **changes))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert Supernet(model, space).bare().state_dict().keys() == make_vit().state_dict().keys()


def test_an_unknown_entanglement_leaves_the_backbone_as_it_was(make_vit, space):
    model = make_vit()
    with pytest.raises(ConfigInvalid, match="entanglement 'papper' is unknown"):
        Supernet(model, space, "papper")
    assert equal(model.state_dict(), make_vit().state_dict())


def test_a_backbone_that_is_already_adapted_is_refused_and_its_supernet_still_trains(trained, space):
    before = [name for name, _ in trained.trainable()]
    with pytest.raises(ConfigInvalid, match="already adapted"):
        Supernet(trained.backbone, space)
    assert [name for name, _ in trained.trainable()] == before


@pytest.mark.parametrize(
    ("name", "norm"), [("caformer_s18", "head.fc.norm"), ("repvit_m0_9", "head.head.bn")], ids=["layer norm", "batch norm"]
)
def test_a_norm_inside_the_head_starts_as_the_identity_so_that_the_head_learns(name, norm):
    model = timm.create_model(name, num_classes=3).eval()
    supernet = Supernet(model, preset("bitfit", adapted_layers(model, ["stages.0.*"])))
    weight, bias = (supernet.backbone.get_parameter(f"{norm}.{part}") for part in ("weight", "bias"))
    assert bool((weight == 1).all())
    assert not bool(bias.any())
    assert float(supernet(torch.randn(2, 3, 64, 64)).detach().abs().max()) > 0
