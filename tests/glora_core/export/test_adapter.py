"""The adapter-only file: small, exact, and refused wherever it does not belong."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from glora_core.backbones import adapted_layers
from glora_core.configs import config_hash, decode
from glora_core.errors import AdapterInvalid
from glora_core.export import apply_adapter, read_adapter, write_adapter
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
        ({"format": "glora-adapter/1"}, "damaged facts"),
        ({"format": "glora-adapter/1", "glora": "{"}, "damaged facts"),
        ({"format": "glora-adapter/1", "glora": json.dumps({"config": "LLL"})}, "damaged facts"),
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
