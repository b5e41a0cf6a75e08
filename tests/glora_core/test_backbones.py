"""Backbones by name: described without weights, loaded with them, and refused with a message that helps."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn

from glora_core import backbones
from glora_core.backbones import BackboneInfo, BackboneSpec, Transform, describe, input_transform, load, skeleton
from glora_core.errors import BackboneUnknown, BackboneUnsupported, ConfigInvalid
from glora_core.space import LayerShape


def write_weights(path: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    """Write a model's state as safetensors or as a torch checkpoint, by the file's ending; returns it."""
    state = model.state_dict()
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    return state


@pytest.fixture
def local_dir(tmp_path: Path, make_vit: Callable[..., nn.Module]) -> Path:
    """A folder as timm writes them, of a tiny ViT with five classes."""
    save_for_hf(make_vit(seed=1, num_classes=5), str(tmp_path / "vit"), safe_serialization=True)
    return tmp_path / "vit"


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_description_of_a_known_vit_has_its_layers_sizes_and_transform():
    info = describe(BackboneSpec("vit_tiny_patch16_224.augreg_in21k"))
    assert info.architecture == "vit_tiny_patch16_224"
    assert len(info.layers) == 12 * 4
    assert info.layers[0] == LayerShape("blocks.0.attn.qkv", 192, 576)
    assert info.transform.input_size == (3, 224, 224)
    assert info.transform.mean == (0.5, 0.5, 0.5)
    assert "vit_tiny_patch16_224" in info.source
    assert info.license == "apache-2.0"


def test_description_counts_the_parameters_of_the_bare_backbone(local_dir, make_vit):
    assert describe(BackboneSpec(f"local-dir:{local_dir}")).parameters == sum(p.numel() for p in make_vit(num_classes=0).parameters())


def test_description_is_made_on_the_meta_device(monkeypatch):
    created = []
    create = timm.create_model
    monkeypatch.setattr(backbones.vision.timm, "create_model", lambda *a, **k: created.append(create(*a, **k)) or created[-1])
    describe(BackboneSpec("vit_tiny_patch16_224"))
    assert {tensor.device.type for model in created for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


def test_description_reads_no_weights(local_dir):
    expected = describe(BackboneSpec(f"local-dir:{local_dir}"))
    (local_dir / "model.safetensors").write_bytes(b"not weights")
    assert describe(BackboneSpec(f"local-dir:{local_dir}")) == expected


def test_description_follows_the_image_size():
    info = describe(BackboneSpec("vit_tiny_patch16_224", image_size=32))
    assert info.transform.input_size == (3, 32, 32)
    assert info.parameters == describe(BackboneSpec("vit_tiny_patch16_224")).parameters - (14 * 14 - 2 * 2) * 192


def test_description_survives_json(local_dir):
    info = describe(BackboneSpec(f"local-dir:{local_dir}"))
    assert BackboneInfo.from_dict(json.loads(json.dumps(info.to_dict()))) == info


def test_a_misspelt_name_is_refused_with_names_near_it():
    with pytest.raises(BackboneUnknown, match=r"'vit_tiny_patch99_224' is not a timm model; near it: .*vit_tiny_patch16_224"):
        describe(BackboneSpec("vit_tiny_patch99_224"))


def test_a_name_like_no_other_is_refused_with_where_to_look():
    with pytest.raises(BackboneUnknown, match=r"'nosuchmodel' is not a timm model.*list_models"):
        describe(BackboneSpec("nosuchmodel"))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224.no_such_tag", "local-dir:", "ftp:somewhere"])
def test_a_name_that_cannot_be_resolved_is_refused_by_name(name):
    with pytest.raises(BackboneUnknown, match=name):
        describe(BackboneSpec(name))


def test_an_architecture_without_pretrained_weights_is_refused():
    with pytest.raises(BackboneUnknown, match="no pretrained weights"):
        describe(BackboneSpec("gmlp_b16_224"))


@pytest.mark.parametrize("action", [describe, lambda spec: load(spec, 3), lambda spec: skeleton(spec, 3)])
def test_a_missing_weights_file_is_refused_by_its_path(tmp_path, action):
    path = str(tmp_path / "nowhere.safetensors")
    with pytest.raises(BackboneUnknown, match=r"nowhere\.safetensors.*does not exist"):
        action(BackboneSpec("vit_tiny_patch16_224", weights=path))


def test_a_missing_local_folder_is_refused_by_its_path(tmp_path):
    with pytest.raises(BackboneUnknown, match="gone"):
        describe(BackboneSpec(f"local-dir:{tmp_path / 'gone'}"))


def test_a_local_folder_without_config_is_refused(local_dir):
    (local_dir / "config.json").unlink()
    with pytest.raises(BackboneUnknown, match=r"config\.json"):
        describe(BackboneSpec(f"local-dir:{local_dir}"))


def test_a_local_folder_without_weights_is_refused_when_loaded(local_dir):
    (local_dir / "model.safetensors").unlink()
    with pytest.raises(BackboneUnknown, match=str(local_dir)):
        load(BackboneSpec(f"local-dir:{local_dir}"), 3)


def test_a_local_folder_loads_its_weights_with_a_fresh_head(local_dir, make_vit):
    model = load(BackboneSpec(f"local-dir:{local_dir}"), num_classes=3)
    expected, actual = make_vit(seed=1, num_classes=5).state_dict(), model.state_dict()
    assert actual["head.weight"].shape == (3, 32)
    assert [name for name in actual if not name.startswith("head.") and not torch.equal(actual[name], expected[name])] == []
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("weights", ["weights.safetensors", "weights.pth"])
def test_a_weights_file_takes_the_place_of_the_names_own_weights(tmp_path, weights):
    path = tmp_path / weights
    state = write_weights(path, timm.create_model("test_vit", num_classes=5))
    actual = load(BackboneSpec("test_vit", weights=str(path)), num_classes=3).state_dict()
    assert actual["head.weight"].shape[0] == 3
    assert [name for name in actual if not name.startswith("head.") and not torch.equal(actual[name], state[name])] == []


def test_a_weights_file_takes_the_place_of_a_local_folders_weights(local_dir, tmp_path, make_vit):
    state = write_weights(tmp_path / "weights.safetensors", make_vit(seed=2, num_classes=5))
    actual = load(BackboneSpec(f"local-dir:{local_dir}", weights=str(tmp_path / "weights.safetensors")), num_classes=3).state_dict()
    assert [name for name in actual if not name.startswith("head.") and not torch.equal(actual[name], state[name])] == []


def test_a_weights_file_of_junk_is_refused_by_its_backbone(tmp_path):
    path = tmp_path / "junk.safetensors"
    path.write_bytes(b"not weights")
    with pytest.raises(BackboneUnknown):
        load(BackboneSpec("vit_tiny_patch16_224", weights=str(path)), 3)


@pytest.mark.parametrize("kept", ["", "blocks.0."])
def test_a_weights_file_that_lacks_tensors_of_the_backbone_is_refused(tmp_path, kept):
    state = {name: value for name, value in timm.create_model("test_vit").state_dict().items() if name.startswith(kept or "nothing")}
    save_file(state | {"something.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(BackboneUnknown):
        load(BackboneSpec("test_vit", weights=str(tmp_path / "other.safetensors")), 5)


def test_a_weights_file_with_tensors_that_the_backbone_lacks_is_of_another_network_and_refused(tmp_path):
    state = timm.create_model("test_vit", init_values=0.1).state_dict()
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(BackboneUnknown, match=r"it has \d+ tensors that this backbone lacks, such as 'blocks\.0\.ls1\.gamma', "):
        load(BackboneSpec("test_vit", weights=str(tmp_path / "other.safetensors")), 5)


def test_a_weights_file_may_hold_what_pretraining_alone_used(tmp_path):
    more = ("head.bias2", "head_dist.weight", "pre_logits.fc.weight", "dist_token", "mask_token")
    state = timm.create_model("test_vit").state_dict() | {name: torch.zeros(3) for name in more}
    save_file(state, tmp_path / "own.safetensors")
    assert torch.equal(load(BackboneSpec("test_vit", weights=str(tmp_path / "own.safetensors")), 5).cls_token, state["cls_token"])


def test_the_licence_of_a_name_is_not_that_of_a_file_that_takes_its_weights_place(tmp_path):
    (tmp_path / "own.pth").touch()
    assert describe(BackboneSpec("test_vit")).license == "apache-2.0"
    assert describe(BackboneSpec("test_vit", weights=str(tmp_path / "own.pth"))).license == ""


def test_a_backbone_of_gray_images_is_refused_with_its_channels(local_dir):
    path = local_dir / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"]["input_size"], config["model_args"]["in_chans"] = [1, 8, 8], 1
    path.write_text(json.dumps(config))
    with pytest.raises(BackboneUnsupported, match=r"takes images of 1 channels; accepted are 3 \(RGB\)"):
        describe(BackboneSpec(f"local-dir:{local_dir}"))


def test_a_skeleton_needs_no_weights_and_takes_a_state_at_hand(local_dir, make_vit, images):
    (local_dir / "model.safetensors").unlink()
    model = skeleton(BackboneSpec(f"local-dir:{local_dir}"), num_classes=3)
    model.load_state_dict(make_vit(seed=3).state_dict())
    assert torch.equal(model(images), make_vit(seed=3)(images))


def test_describing_a_backbone_that_cannot_adapt_is_refused():
    with pytest.raises(BackboneUnsupported, match="has no linear layer or convolution to adapt"):
        describe(BackboneSpec("resnetv2_50x1_bit.goog_in21k"))


def test_description_has_the_layers_of_the_specs_patterns_only(local_dir):
    layers = describe(BackboneSpec(f"local-dir:{local_dir}", layers=("blocks.1.mlp.*",))).layers
    assert [layer.name for layer in layers] == ["blocks.1.mlp.fc1", "blocks.1.mlp.fc2"]


def test_a_pattern_that_matches_no_layer_is_refused_when_described(local_dir):
    with pytest.raises(ConfigInvalid, match=r"'blocks\.7\.\*' match no layer"):
        describe(BackboneSpec(f"local-dir:{local_dir}", layers=("blocks.7.*",)))


def test_description_of_a_convolutional_backbone_names_the_batch_norms_that_take_up_biases():
    layers = describe(BackboneSpec("mobilenetv2_050")).layers
    assert layers[0] == LayerShape("blocks.0.0.conv_dw", 9, 16, bias=False, absorber="blocks.0.0.bn1")
    assert all(layer.absorber for layer in layers)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "levit_128", "efficientformer_l1"])
def test_a_backbone_with_a_distillation_head_is_described_or_refused(name):
    try:
        layers = describe(BackboneSpec(name)).layers
    except (BackboneUnknown, BackboneUnsupported):
        return
    assert not any("head" in layer.name for layer in layers)


@pytest.mark.parametrize("action", [describe, lambda spec: load(spec, 4)], ids=["describe", "load"])
def test_a_backbone_with_an_auxiliary_head_is_refused(action, tmp_path):
    file = tmp_path / "model.safetensors"
    write_weights(file, timm.create_model("volo_d1_224", num_classes=3))
    with pytest.raises(BackboneUnsupported, match="VOLO has several classifiers, such as a distillation or auxiliary head"):
        action(BackboneSpec("volo_d1_224", weights=str(file)))


def test_a_backbone_that_does_not_tell_its_head_is_refused_by_name():
    with pytest.raises(BackboneUnsupported, match=r"EfficientVit\w* does not tell what its classifier is"):
        describe(BackboneSpec("efficientvit_m0"))


def test_a_volo_without_its_auxiliary_head_adapts_but_for_its_head():
    with torch.device("meta"):
        model = timm.create_model("volo_d1_224", num_classes=3, use_aux_head=False)
    assert not [layer.name for layer in backbones.adapted_layers(model) if "head" in layer.name]


def test_a_convolutional_backbone_with_linear_layers_takes_another_image_size():
    assert describe(BackboneSpec("convnext_tiny", image_size=96)).transform.input_size == (3, 96, 96)


def test_input_transform_is_the_models_own_at_the_specs_image_size(make_vit):
    assert input_transform(make_vit(), BackboneSpec("x")).crop_pct == 0.9
    assert input_transform(make_vit(), BackboneSpec("x", image_size=64)).input_size == (3, 64, 64)


def test_a_transform_reads_back_from_plain_json_types():
    transform = Transform((3, 8, 8), "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.9, "center")
    stored = {"input_size": [3, 8, 8], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    stored |= {"interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center", "other": 1}
    assert Transform.of(stored) == transform


@pytest.mark.parametrize("content", [b"", b"root:x:0:0\n", b"\x80\x04garbage"], ids=["empty", "text", "broken pickle"])
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_file_that_holds_no_weights_is_refused_by_its_name(content, name, tmp_path):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(BackboneUnknown, match="is not a weights file"):
        load(BackboneSpec("vit_tiny_patch16_224", weights=str(file)), 3)


def write_arrays(model, file):
    """A ViT's weights in the layout that the authors of the vision transformer published theirs in."""
    state, heads = {name: value.numpy() for name, value in model.state_dict().items()}, model.blocks[0].attn.num_heads
    width = state["cls_token"].shape[-1]
    arrays = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for i in range(len(model.blocks)):
        own, prefix = f"blocks.{i}", f"Transformer/encoderblock_{i}"
        for norm, theirs in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays |= {f"{prefix}/{theirs}/{b}": state[f"{own}.{norm}.{a}"] for a, b in (("weight", "scale"), ("bias", "bias"))}
        attention = f"{prefix}/MultiHeadDotProductAttention_1"
        kernels, biases = state[f"{own}.attn.qkv.weight"].reshape(3, width, width), state[f"{own}.attn.qkv.bias"].reshape(3, heads, -1)
        for name, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True):
            arrays |= {f"{attention}/{name}/kernel": kernel.T.reshape(width, heads, -1), f"{attention}/{name}/bias": bias}
        arrays[f"{attention}/out/kernel"] = state[f"{own}.attn.proj.weight"].T.reshape(heads, -1, width)
        arrays[f"{attention}/out/bias"] = state[f"{own}.attn.proj.bias"]
        for r in range(2):
            arrays[f"{prefix}/MlpBlock_3/Dense_{r}/kernel"] = state[f"{own}.mlp.fc{r + 1}.weight"].T
            arrays[f"{prefix}/MlpBlock_3/Dense_{r}/bias"] = state[f"{own}.mlp.fc{r + 1}.bias"]
    np.savez(file, **arrays)
    return file


def test_weights_as_the_vision_transformers_authors_published_theirs_are_read_but_for_the_head(local_dir, tmp_path, make_vit):
    theirs = make_vit(seed=7)
    file = write_arrays(theirs, tmp_path / "ViT.npz")
    for classes in (3, 5):  # as many as the file's head has, which must not be taken up, and others
        model = load(BackboneSpec(f"local-dir:{local_dir}", str(file)), classes)
        loaded, expected = model.state_dict(), theirs.state_dict()
        assert [name for name, value in expected.items() if "head" not in name and not torch.equal(loaded[name], value)] == []
        assert loaded["head.weight"].shape[0] == classes
        assert not torch.equal(loaded["head.weight"][:3], expected["head.weight"])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224.augreg_in21k", "resnet18.a1_in1k"])
def test_arrays_that_are_not_of_the_backbone_are_refused(name, tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(BackboneUnknown, match=r"cannot be created"):
        load(BackboneSpec(name, str(tmp_path / "x.npz")), 3)
