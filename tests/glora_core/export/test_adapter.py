"""The adapter-only file: small, exact, and refused wherever it does not belong."""

import json
import math

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from glora_core.backbones import adapted_layers
from glora_core.configs import config_hash, decode
from glora_core.errors import AdapterInvalid
from glora_core.export import apply_adapter, read_adapter, write_adapter
from glora_core.export.adapter import _digest
from glora_core.presets import preset
from glora_core.sampling import FeasibleSampler, stream
from glora_core.supernet import Supernet


def small_convnet(seed: int = 0):
    torch.manual_seed(seed)
    return timm.create_model("mobilenetv2_035", num_classes=3).eval()


@pytest.fixture(params=["paper", "normalised"])
def supernet(request, make_vit, randomise) -> Supernet:
    model = make_vit()
    return randomise(Supernet(model, preset("paper-multirank", adapted_layers(model)), request.param))


def some_config(supernet: Supernet, seed: int = 0):
    return FeasibleSampler(supernet.space, supernet.space.maximum // 2).sample(stream(seed))


@pytest.mark.parametrize("seed", range(4))
def test_applied_adapter_equals_the_merged_state_bit_for_bit(supernet, make_vit, tmp_path, seed):
    config = some_config(supernet, seed)
    adapter = read_adapter(write_adapter(tmp_path / "a.safetensors", supernet, config, ["x", "y", "z"]))

    rebuilt = apply_adapter(adapter, make_vit()).state_dict()

    merged = supernet.merged_state(config)
    assert (adapter.config, adapter.classes) == (config, ("x", "y", "z"))
    assert set(rebuilt) == set(merged)
    assert [key for key in merged if not torch.equal(merged[key], rebuilt[key])] == []


def test_biases_taken_up_by_batch_norms_are_rebuilt_too(randomise, tmp_path):
    model = small_convnet()
    supernet = randomise(Supernet(model, preset("paper", adapted_layers(model))))
    config = supernet.space.extreme(largest=True)

    rebuilt = apply_adapter(read_adapter(write_adapter(tmp_path / "a.safetensors", supernet, config)), small_convnet()).state_dict()

    merged = supernet.merged_state(config)
    assert [key for key in merged if not torch.equal(merged[key], rebuilt[key])] == []


def test_the_file_holds_the_numbers_of_its_subnet_and_its_head_alone(supernet, tmp_path):
    config = some_config(supernet)
    adapter = read_adapter(write_adapter(tmp_path / "a.safetensors", supernet, config))
    head = sum(p.numel() for p in supernet.backbone.get_classifier().parameters())
    numbers = [tensor.numel() for name, tensor in adapter.tensors.items() if not name.endswith(".scales")]
    assert sum(numbers) == supernet.space.parameters(config) + head


def test_another_backbone_is_refused(supernet, make_vit, tmp_path):
    adapter = read_adapter(write_adapter(tmp_path / "a.safetensors", supernet, some_config(supernet)))
    with pytest.raises(AdapterInvalid, match="belongs to backbone weights"):
        apply_adapter(adapter, make_vit(seed=5))


def test_a_head_of_another_size_is_refused(supernet, make_vit, tmp_path):
    adapter = read_adapter(write_adapter(tmp_path / "a.safetensors", supernet, some_config(supernet)))
    other = make_vit()
    other.reset_classifier(7)
    with pytest.raises(AdapterInvalid, match="do not fit"):
        apply_adapter(adapter, other)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "format is None"),
        ({"format": "pt"}, "format is 'pt'"),
        ({"format": "glora-adapter/2"}, "damaged facts"),
        ({"format": "glora-adapter/2", "glora": "{"}, "damaged facts"),
        ({"format": "glora-adapter/2", "glora": json.dumps({"config": "LLL"})}, "damaged facts"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, metadata, message):
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(AdapterInvalid, match=message):
        read_adapter(tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [None, b"", b"no safetensors file at all"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, content):
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AdapterInvalid, match="cannot be read"):
        read_adapter(path)


def test_the_config_in_the_file_is_the_canonical_text(supernet, tmp_path):
    config = some_config(supernet)
    adapter = read_adapter(write_adapter(tmp_path / "a.safetensors", supernet, config))
    assert config_hash(adapter.config) == config_hash(config)
    assert adapter.space.size == 1
    with pytest.raises(ValueError, match="five of"):
        decode("LLL")


@pytest.fixture
def rewrite(make_vit, randomise, tmp_path):
    """Writes an adapter, changes its facts and tensors, and writes them again with the sha256 that goes with them."""

    def change(facts=lambda facts: None, tensors=lambda tensors: None):
        model = make_vit()
        supernet = randomise(Supernet(model, preset("paper", adapted_layers(model))))
        path = write_adapter(tmp_path / "a.safetensors", supernet, supernet.space.extreme(largest=True))
        with safe_open(path, framework="pt") as file:
            known = json.loads(file.metadata()["glora"])
        numbers = load_file(path)
        facts(known)
        tensors(numbers)
        text = json.dumps(known)
        metadata = {"format": "glora-adapter/2", "glora": text, "sha256": _digest(text, numbers)}
        save_file(numbers, path, metadata=metadata)
        return path

    return change


SCALES = "backbone.blocks.0.attn.qkv.support.scales"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"config": None}, "damaged facts"),
        ({"config": 5}, "damaged facts"),
        ({"entanglement": "zzz"}, "entanglement 'zzz' is unknown"),
        ({"entanglement": None}, "entanglement None is unknown"),
        ({"layers": "abc"}, "damaged facts"),
        ({"layers": []}, "damaged facts"),
        ({"classes": None}, "damaged facts"),
        ({"config": "-".join(["L999999999" * 3 + "VV"] * 8)}, "has 1,"),
    ],
    ids=str,
)
def test_facts_that_are_none_are_refused(rewrite, facts, message):
    with pytest.raises(AdapterInvalid, match=message):
        read_adapter(rewrite(lambda known: known.update(facts)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(SCALES), "lacks scales of shape"),
        (lambda tensors: tensors.update({SCALES: torch.ones(3)}), "lacks scales of shape"),
        (lambda tensors: tensors[SCALES].fill_(math.inf), "not finite"),
        (lambda tensors: tensors["backbone.head.weight"].fill_(math.nan), "not finite"),
        (lambda tensors: tensors.pop("backbone.blocks.1.mlp.fc2.support.A_up_0"), "asks for"),
    ],
    ids=["no scales", "scales of another shape", "endless scales", "nan", "a tensor less"],
)
def test_tensors_that_do_not_go_with_the_facts_are_refused(rewrite, change, message):
    with pytest.raises(AdapterInvalid, match=message):
        read_adapter(rewrite(tensors=change))


def test_a_layer_that_the_backbone_lacks_is_refused(rewrite, make_vit):
    def rename(tensors):
        for name in [name for name in tensors if ".mlp.fc2." in name]:
            tensors[name.replace("fc2", "fc9")] = tensors.pop(name)

    def renamed(facts):
        facts["layers"] = [layer | {"name": layer["name"].replace("fc2", "fc9")} for layer in facts["layers"]]

    adapter = read_adapter(rewrite(renamed, rename))
    with pytest.raises(AdapterInvalid, match=r"blocks.0.mlp.fc9"):
        apply_adapter(adapter, make_vit())


@pytest.mark.parametrize("from_end", [1, 5000])
def test_one_flipped_bit_is_found(supernet, tmp_path, from_end):
    path = write_adapter(tmp_path / "a.safetensors", supernet, some_config(supernet))
    content = bytearray(path.read_bytes())
    content[-from_end] ^= 0x01
    path.write_bytes(content)
    with pytest.raises(AdapterInvalid, match="another sha256"):
        read_adapter(path)
