"""A subnet written as a peft adapter: stock peft loads it and computes what our merged network computes."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from glora_core.backbones import adapted_layers, run
from glora_core.configs import LayerConfig, SubnetConfig, decode, lora, parse_layer
from glora_core.errors import ConfigInvalid, ExportMismatch
from glora_core.export.peft import write_peft
from glora_core.methods import method_config
from glora_core.presets import preset
from glora_core.space import LayerShape, SearchSpace
from glora_core.supernet import Supernet

peft = pytest.importorskip("peft", "0.20.0", reason="the adapters are loaded by stock peft 0.20 or newer, which is not installed")

TOLERANCE = 64 * torch.finfo(torch.float32).eps
"""Of logits in float32, as a share of the largest. peft merges in float32: each weight takes some rank + 4 roundings of 2⁻²⁴, and
each layer's sum of some tens of products √k more; over the few layers here that makes up to 10 ulps (measured). A wrong support tensor
moves the logits by 10⁻³ and more."""

DEPTH = 12
LAYERS = 4 * DEPTH
"""Adapted layers of a ViT of that depth, each of which can try one layer config."""

IMAGE = (3, 32, 32)


def varied(model: nn.Module, seed: int = 0) -> nn.Module:
    """A model with weights far from their initial values, norms near the identity, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 and "bias" not in name else 0.0, 0.2, generator)
    return model.eval()


def swin() -> nn.Module:
    sizes = {"img_size": 32, "window_size": 4, "embed_dim": 12, "depths": (2, 2), "num_heads": (2, 2)}
    return varied(timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, **sizes))


def mobilenet() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv2_035", num_classes=3)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="BERT is a model of transformers, which is not installed")
    sizes = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    return varied(transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, num_labels=3)))


def gpt2(causal: bool = False) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="GPT-2 is a model of transformers, which is not installed")
    tokens = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(n_embd=24, n_layer=2, n_head=2, n_positions=32, num_labels=3, **tokens)
    return varied(transformers.GPT2LMHeadModel(config) if causal else transformers.GPT2ForSequenceClassification(config))


def inputs_of(model: nn.Module):
    generator = torch.Generator().manual_seed(7)
    if hasattr(model, "base_model_prefix"):
        return {"input_ids": torch.randint(1, 60, (4, 9), generator=generator)}
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or IMAGE[1:]
    return torch.randn(4, 3, *size, generator=generator, dtype=next(model.parameters()).dtype)


def drawn(space: SearchSpace, seed: int) -> SubnetConfig:
    rng = np.random.default_rng(seed)
    return tuple(configs[rng.integers(len(configs))] for configs in space.layer_configs)


def stock(backbone: nn.Module, folder: Path) -> nn.Module:
    """The adapter as stock peft loads it; a warning that a tensor is missing or of no use is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r".*([Mm]issing|[Uu]nexpected|inconsistency|fan_in_fan_out|groups).*")
        return peft.PeftModel.from_pretrained(backbone, str(folder)).eval()


@torch.no_grad()
def assert_stock_agrees(folder: Path, make, supernet: Supernet, config: SubnetConfig, tolerance: float = TOLERANCE) -> None:
    """Stock peft's logits, unmerged and merged, are those of our merged weights in the bare model, and not the bare model's."""
    ours, bare = make(), make()
    ours.load_state_dict(supernet.merged_state(config))
    x = inputs_of(bare)
    expected, untouched = run(ours, x), run(bare, x)
    model = stock(bare, folder)
    bound = tolerance * expected.abs().max()
    assert (run(model, x) - expected).abs().max() <= bound
    merged = model.merge_and_unload(safe_merge=True)
    assert (run(merged, x) - expected).abs().max() <= bound
    assert (untouched - expected).abs().max() > 100 * bound


@pytest.fixture
def train(randomise):
    """A supernet with random support tensors and head over what a factory makes."""

    def fill(make, space: SearchSpace | None = None, entanglement: str = "normalised") -> Supernet:
        model = make()
        return randomise(Supernet(model, space or preset("paper-multirank", adapted_layers(model)), entanglement)).eval()

    return fill


def options(folder: Path) -> dict:
    return json.loads((folder / "adapter_config.json").read_text())


def parts(folder: Path) -> set[str]:
    """The last two words of the names of the adapter's own tensors."""
    keys = load_file(folder / "adapter_model.safetensors")
    return {".".join(key.rsplit(".", 2)[1:]) for key in keys if "lora_" in key}


@pytest.mark.parametrize("entanglement", ["normalised", "paper"])
@pytest.mark.parametrize("seed", range(3))
def test_stock_peft_computes_a_random_subnet_of_a_vit(make_vit, train, tmp_path, seed, entanglement):
    supernet = train(make_vit, entanglement=entanglement)
    config = drawn(supernet.space, seed)
    assert_stock_agrees(write_peft(tmp_path, supernet, config), make_vit, supernet, config)


@pytest.mark.parametrize("adapter", range(math.ceil(432 / LAYERS)))
def test_stock_peft_computes_each_of_the_432_layer_configs(make_vit, train, tmp_path, adapter):
    def make() -> nn.Module:
        return make_vit(depth=DEPTH, embed_dim=16)

    supernet = train(make, SearchSpace(adapted_layers(make()), ranks=(4,)))
    assert len(supernet.space.layers) == LAYERS and {len(configs) for configs in supernet.space.layer_configs} == {432}
    config = tuple(supernet.space.layer_configs[i][(adapter * LAYERS + i) % 432] for i in range(LAYERS))
    assert_stock_agrees(write_peft(tmp_path, supernet, config), make, supernet, config)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("make", [swin, bert, gpt2, mobilenet])
def test_stock_peft_computes_a_random_subnet_of_any_architecture(make, train, tmp_path, seed):
    supernet = train(make)
    config = drawn(supernet.space, seed)
    assert_stock_agrees(write_peft(tmp_path, supernet, config), make, supernet, config)


def test_in_float64_stock_peft_differs_by_the_rounding_of_the_file_alone(make_vit, train, tmp_path):
    """The numbers of the `paper` form but for a low-rank C are float32, so that the file holds them exactly."""

    def make() -> nn.Module:
        return make_vit().double()

    supernet = train(make, SearchSpace.of(adapted_layers(make()), (2, 4), {"C": ["vector", "none"]}), "paper")
    for parameter in supernet.parameters():
        parameter.data = parameter.data.float().double()
    config = drawn(supernet.space, 5)
    assert_stock_agrees(write_peft(tmp_path, supernet, config), make, supernet, config, tolerance=2.0**-48)


@pytest.mark.parametrize("make", [gpt2, mobilenet, bert])
def test_a_lora_subnet_is_written_as_ordinary_lora(make, train, tmp_path):
    supernet = train(make)
    config = tuple(LayerConfig(B=lora((2, 4, 8)[i % 3])) for i in range(len(supernet.space.layers)))
    folder = write_peft(tmp_path, supernet, config)
    assert (options(folder)["peft_type"], options(folder)["lora_alpha"]) == ("LORA", options(folder)["r"])
    assert parts(folder) == {"lora_A.weight", "lora_B.weight"}
    assert_stock_agrees(folder, make, supernet, config)


def test_layers_without_an_update_are_no_targets(make_vit, train, tmp_path):
    supernet = train(make_vit)
    config = decode("NL2NNN-NNNNN-NNNNN-NL4NNN-NNNNN-NNNNN-NNNNN-NNNNN")
    folder = write_peft(tmp_path, supernet, config)
    assert options(folder)["target_modules"] == r"(?:blocks\.0\.attn\.qkv|blocks\.0\.mlp\.fc2)"
    assert_stock_agrees(folder, make_vit, supernet, config)


@pytest.mark.parametrize("make", [swin, gpt2, mobilenet])
def test_a_trained_head_alone_is_an_adapter_with_a_target_that_does_nothing(make, train, tmp_path):
    supernet = train(make)
    config = method_config(supernet.space, "linear-probe")
    assert_stock_agrees(write_peft(tmp_path, supernet, config), make, supernet, config)


def test_where_every_layer_travels_whole_an_embedding_is_the_target_that_does_nothing(train, tmp_path):
    supernet = train(gpt2)
    config = method_config(supernet.space, "ssf")
    folder = write_peft(tmp_path, supernet, config)
    assert options(folder)["target_modules"] == r"(?:transformer\.wpe)"
    assert_stock_agrees(folder, gpt2, supernet, config)


def test_a_language_model_has_no_head_to_ship(train, tmp_path):
    def make() -> nn.Module:
        return gpt2(causal=True)

    supernet = train(make)
    config = tuple(LayerConfig(B=lora(4)) for _ in supernet.space.layers)
    folder = write_peft(tmp_path, supernet, config)
    assert options(folder)["modules_to_save"] is None
    assert_stock_agrees(folder, make, supernet, config)


def test_batch_norms_travel_whole_where_they_take_up_a_bias_and_nowhere_else(train, tmp_path):
    supernet = train(mobilenet)
    layers = supernet.space.layers
    config = tuple(LayerConfig(E=parse_layer("NNNNV").E) if i == 3 else LayerConfig() for i in range(len(layers)))
    folder = write_peft(tmp_path, supernet, config)
    assert options(folder)["modules_to_save"] == sorted(["classifier", layers[3].absorber])
    assert_stock_agrees(folder, mobilenet, supernet, config)


def test_a_linear_layer_beside_convolutions_takes_the_glora_format(train, make_vit, tmp_path):
    layers = [*adapted_layers(make_vit(), ["*.qkv"]), *adapted_layers(make_vit(), ["patch_embed.proj"])]
    supernet = train(make_vit, SearchSpace.of(layers, (2, 4)))
    config = decode("VL2NNS-SL4VNV-NL4NNN")
    folder = write_peft(tmp_path, supernet, config)
    assert options(folder)["peft_type"] == "GLORA"
    assert options(folder)["modules_to_save"] == ["head", "patch_embed.proj"]
    assert_stock_agrees(folder, make_vit, supernet, config)


def test_a_subnet_written_again_replaces_the_adapter_and_nothing_else(make_vit, train, tmp_path):
    supernet = train(make_vit)
    (tmp_path / "README.md").write_text("mine")
    write_peft(tmp_path, supernet, drawn(supernet.space, 0))
    config = drawn(supernet.space, 1)
    write_peft(tmp_path, supernet, config)
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert_stock_agrees(tmp_path, make_vit, supernet, config)


@pytest.mark.parametrize("code", ["NNNNV", "NNVNN", "L2VVNN"])
def test_a_gained_bias_is_refused_and_nothing_is_written(make_vit, train, tmp_path, code):
    def make() -> nn.Module:
        return make_vit(qkv_bias=False)

    supernet = train(make, SearchSpace.of([LayerShape("blocks.0.attn.qkv", 32, 96, bias=False)], (2,), new_biases=True))
    with pytest.raises(ConfigInvalid, match=r"'blocks\.0\.attn\.qkv' has no bias"):
        write_peft(tmp_path / "new", supernet, decode(code))
    assert not (tmp_path / "new").exists()


def test_a_config_outside_the_space_is_refused(make_vit, train, tmp_path):
    supernet = train(make_vit)
    with pytest.raises(ConfigInvalid, match="not in this supernet's space"):
        write_peft(tmp_path, supernet, (LayerConfig(B=lora(3)),) * 8)


@pytest.mark.parametrize(("where", "name", "value"), [("blocks.0.attn.qkv", "support.E_vector", 1e300), ("head", "weight", float("nan"))])
def test_numbers_that_float32_cannot_hold_are_refused(make_vit, train, tmp_path, where, name, value):
    supernet = train(lambda: make_vit().double())
    nn.init.constant_(supernet.backbone.get_parameter(f"{where}.{name}"), value)
    with pytest.raises(ExportMismatch, match=where.replace(".", r"\.")):
        write_peft(tmp_path / "new", supernet, (parse_layer("NNNNV"),) * 8)
    assert not (tmp_path / "new").exists()


class Twins(nn.Module):
    """A timm-like model in which one module's name ends like another's."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.second_head, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second_head(self.fc(x)))


@pytest.mark.parametrize("layers", [["fc"], ["fc", "second_head"]])
def test_a_module_that_peft_would_take_for_the_head_travels_too(train, tmp_path, layers):
    def make() -> nn.Module:
        return varied(Twins())

    supernet = train(make, SearchSpace.of([LayerShape(name, 4, 4) for name in layers], (2,)))
    config = (parse_layer("VL2VVV"),) * len(layers)
    folder = write_peft(tmp_path, supernet, config)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    ours = make()
    ours.load_state_dict(supernet.merged_state(config))
    assert options(folder)["modules_to_save"] == ["head", "second_head"]
    torch.testing.assert_close(stock(make(), folder)(x), ours(x))


def test_modules_given_as_whole_travel_as_they_are(make_vit, train, tmp_path):
    supernet = train(make_vit)
    nn.init.constant_(supernet.backbone.get_parameter("patch_embed.proj.weight"), 0.5)
    config = drawn(supernet.space, 1)
    assert_stock_agrees(write_peft(tmp_path, supernet, config, whole=["patch_embed.proj"]), make_vit, supernet, config)


@pytest.mark.parametrize(("whole", "reason"), [("blocks.0", "adapted layers in it"), ("no.such", "not in the backbone")])
def test_a_module_that_cannot_travel_whole_is_refused(make_vit, train, tmp_path, whole, reason):
    supernet = train(make_vit)
    with pytest.raises(ConfigInvalid, match=reason):
        write_peft(tmp_path, supernet, drawn(supernet.space, 0), whole=[whole])


class Alike(nn.Module):
    """A timm-like model with a layer inside a module that is named like the head, and one that the head's name as a pattern matches."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"top": nn.ModuleDict({"fc": nn.ModuleDict({"inner": nn.Linear(4, 4)})})})
        self.top_fc, self.top = nn.Linear(4, 4), nn.ModuleDict({"fc": nn.Linear(4, 2)})

    def get_classifier(self) -> nn.Module:
        return self.top["fc"]


@pytest.mark.parametrize(("layer", "named"), [("body.top.fc.inner", r"'body\.top\.fc'"), ("top_fc", "'top_fc'")])
def test_a_layer_that_peft_would_leave_out_is_refused_by_its_name(train, tmp_path, layer, named):
    supernet = train(Alike, SearchSpace.of([LayerShape(layer, 4, 4)]))
    with pytest.raises(ConfigInvalid, match=named):
        write_peft(tmp_path, supernet, decode("VVVVV"))
