"""The exported checkpoint: loads in plain timm, computes the merged logits bit for bit, and is refused if it would not."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from glora_core.backbones import Transform, adapted_layers
from glora_core.configs import SubnetConfig, config_hash, decode, encode
from glora_core.data.images import ImageSplit
from glora_core.data.text import TextSplit
from glora_core.errors import ConfigInvalid, ExportMismatch
from glora_core.export import BOUND, Export, export_checkpoint, load_state, merge_error, save_state, write_manifest
from glora_core.presets import preset
from glora_core.space import LayerShape, SearchSpace
from glora_core.supernet import Supernet

CLASSES = ("red", "green", "blue")
TRANSFORM = Transform((3, 8, 8), "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.875, "squash")


@pytest.fixture
def config() -> SubnetConfig:
    return decode("L3VVSV-VL1L3VS-SSNNV-NNNNN-NNL1NS-VVVVV-L1L3NSN-SVNNV")


@pytest.fixture
def export(tmp_path: Path, trained: Supernet, toy_split: ImageSplit, config: SubnetConfig):
    """Exports a config to a folder that does not exist yet."""

    def run(supernet: Supernet = trained, chosen: SubnetConfig = config) -> Export:
        return export_checkpoint(tmp_path / "deep" / "export", supernet, chosen, CLASSES, TRANSFORM, toy_split)

    return run


@pytest.fixture
def merged(trained: Supernet, make_vit: Callable[..., nn.Module], config: SubnetConfig) -> nn.Module:
    model = make_vit(seed=6)
    model.load_state_dict(trained.merged_state(config))
    return model


@pytest.fixture
def images(toy_split: ImageSplit) -> torch.Tensor:
    return toy_split.take(torch.arange(30))[0]


def test_the_folder_loads_in_timm_and_computes_the_merged_logits_bit_for_bit(export, merged, images):
    model = timm.create_model(f"local-dir:{export().folder}", pretrained=True).eval()
    assert torch.equal(model(images), merged(images))


def test_the_weights_load_as_a_timm_checkpoint_and_compute_the_merged_logits_bit_for_bit(export, merged, images):
    folder = export().folder
    stored = json.loads((folder / "config.json").read_text())
    arguments = {"num_classes": stored["num_classes"]} | stored["model_args"]
    model = timm.create_model(stored["architecture"], checkpoint_path=folder / "model.safetensors", **arguments)
    assert torch.equal(model.eval()(images), merged(images))


def test_the_weights_are_exactly_the_merged_state(export, trained, config):
    stored, expected = load_file(export().folder / "model.safetensors"), trained.merged_state(config)
    assert stored.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(stored[name], expected[name])] == []


def test_the_input_transform_of_the_loaded_model_is_the_exported_one(export):
    model = timm.create_model(f"local-dir:{export().folder}", pretrained=True)
    assert Transform.of(timm.data.resolve_data_config({}, model=model)) == TRANSFORM


def test_the_class_names_are_in_timms_config(export):
    assert json.loads((export().folder / "config.json").read_text())["label_names"] == list(CLASSES)


def test_what_verification_measured_is_reported(export, trained):
    found = export().verification
    assert found.worst_layer in {shape.name for shape, _ in trained.layers()}
    assert 0 < found.worst_ratio <= 1
    assert found.structural_error <= BOUND


def test_the_reported_merge_error_is_that_of_the_logits(export, trained, merged, config, toy_split):
    assert export().merge_error == merge_error(trained, merged, config, toy_split.take(torch.arange(8))[0])


def test_merge_error_of_a_model_with_other_weights_is_large(trained, make_vit, config, toy_split):
    assert merge_error(trained, make_vit(seed=5), config, toy_split.take(torch.arange(8))[0]) > 0.01


def test_merge_error_is_relative_to_the_largest_logit(trained, config, toy_split, make_vit):
    plain = make_vit()
    plain.load_state_dict(trained.merged_state(config))
    images, _ = toy_split.take(torch.arange(30))
    trained.set_config(config)
    with torch.no_grad():
        shift = 0.25 * float(trained(images).abs().max())
        plain.head.bias += shift
    assert merge_error(trained, plain, config, toy_split.take(torch.arange(8))[0]) == pytest.approx(0.25, rel=1e-3)


def tamper(trained: Supernet, monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[torch.Tensor], object]) -> None:
    genuine = trained.merged_state

    def tampered(config: SubnetConfig, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
        state = genuine(config, dtype)
        if dtype is None:  # the state that is exported, not the one it is held against
            change(state[name])
        return state

    monkeypatch.setattr(trained, "merged_state", tampered)


@pytest.mark.parametrize("name", ["blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.bias", "head.weight", "pos_embed"])
def test_tampered_weights_are_refused_and_nothing_is_written(export, trained, monkeypatch, tmp_path, name):
    tamper(trained, monkeypatch, name, lambda weight: weight.mul_(1.000001))
    with pytest.raises(ExportMismatch, match=rf"tensor '{name}': merged and unmerged differ by .*; the bound is"):
        export()
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_give_no_finite_logits_are_refused(export, trained, monkeypatch, value):
    tamper(trained, monkeypatch, "head.weight", lambda weight: weight.fill_(value))
    with pytest.raises(ExportMismatch, match=r"tensor 'head\.weight'.* differ by (inf|nan)"):
        export()


def test_a_merged_state_that_lacks_a_tensor_is_refused_by_its_name(export, trained, monkeypatch):
    genuine = trained.merged_state
    monkeypatch.setattr(trained, "merged_state", lambda *a: {k: v for k, v in genuine(*a).items() if k != "norm.weight"})
    with pytest.raises(ExportMismatch, match=r"norm\.weight"):
        export()


def test_a_gained_bias_that_the_architecture_cannot_hold_is_refused_by_its_name(export, make_vit, randomise):
    space = SearchSpace((LayerShape("blocks.0.attn.qkv", 32, 96, bias=False),), new_biases=True)
    supernet = randomise(Supernet(make_vit(qkv_bias=False), space)).eval()
    with pytest.raises(ExportMismatch, match=r"blocks\.0\.attn\.qkv\.bias"):
        export(supernet, decode("NNNNV"))


def test_a_config_without_gained_bias_exports_from_a_backbone_without_biases(export, make_vit, randomise, images):
    space = SearchSpace((LayerShape("blocks.0.attn.qkv", 32, 96, bias=False),))
    supernet = randomise(Supernet(make_vit(qkv_bias=False), space)).eval()
    folder = export(supernet, decode("VL4NNN")).folder
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    torch.testing.assert_close(model(images), supernet(images), rtol=1e-4, atol=1e-4)


def test_the_manifest_says_what_the_checkpoint_is(export, trained, space, config):
    folder = export().folder
    path = write_manifest(folder, trained, config, {"budget": 123, "metrics": {"val": 0.5}})
    manifest = json.loads(path.read_text())
    weights = (folder / "model.safetensors").read_bytes()
    assert path == folder / "manifest.json"
    assert manifest["format"] == "glora-manifest/1"
    assert manifest["architecture"] == "vit_tiny_patch16_224"
    assert manifest["model_args"]["embed_dim"] == 32
    assert manifest["classes"] == list(CLASSES)
    assert manifest["subnet"] == {
        "hash": config_hash(config),
        "code": encode(config),
        "parameters": space.parameters(config),
        "layers": {layer.name: choice.code for layer, choice in zip(space.layers, config, strict=True)},
    }
    assert manifest["weights"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert manifest["weights"]["file"] == "model.safetensors"
    assert manifest["versions"]["torch"] == torch.__version__
    assert (manifest["budget"], manifest["metrics"]) == (123, {"val": 0.5})


def test_a_trainable_state_written_to_a_file_reads_back_bit_for_bit(trained, tmp_path):
    state = trained.trainable_state()
    save_state(tmp_path / "state.safetensors", state)
    stored = load_state(tmp_path / "state.safetensors")
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[name], value) and stored[name].shape == value.shape for name, value in state.items())


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("red", "green"), "2 class names are given for a head of 3 outputs"),
        ((*CLASSES, "grey"), "4 class names are given for a head of 3 outputs"),
        (("red", "red", "blue"), "class name 'red' is given twice"),
    ],
)
@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_class_names_that_do_not_fit_the_head_are_refused_before_anything_is_written(
    trained, make_model, make_inputs, config, toy_split, tmp_path, classes, message, library
):
    supernet, split, transform = trained, toy_split, TRANSFORM
    if library == "transformers":
        model = make_model("bert").float()
        supernet, transform = Supernet(model, preset("bitfit", adapted_layers(model))), None
        split = TextSplit(**make_inputs("bert"), labels=torch.arange(3))
    with pytest.raises(ConfigInvalid, match=message):
        export_checkpoint(tmp_path / "export", supernet, supernet.space.extreme(largest=True), classes, transform, split)
    assert not (tmp_path / "export").exists()
