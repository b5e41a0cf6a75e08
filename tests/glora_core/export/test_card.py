"""The model card: says what was measured, leaves out what was not, and how to load what."""

from glora_core.export import model_card
from glora_core.methods import method_config
from glora_core.presets import preset
from glora_core.space import LayerShape

SPACE = preset("paper", [LayerShape("blocks.0.fc1", 4, 8), LayerShape("blocks.0.fc2", 8, 4)])
LORA = method_config(SPACE, "lora")
BARE = {"library": "timm", "architecture": "vit_tiny", "classes": ["a", "b"], "weights": {"sha256": "f" * 64}}
FULL = BARE | {
    "backbone": {"name": "vit_tiny.augreg", "license": "apache-2.0", "weights_sha256": "a" * 64},
    "data": {
        "fingerprint": "d" * 64,
        "splits": {"train": 800, "val": 200},
        "counts": {"train": [500, 300], "val": [100, 100]},
        "warnings": ["one val image is in train too"],
    },
    "budget": 1000,
    "seed": 7,
    "merge_error": 1.5e-7,
    "metrics": {"val_accuracy": 0.975, "val_loss": 0.1, "test_accuracy": None, "test_loss": None},
    "versions": {"torch": "2"},
}


def test_card_tells_data_method_budget_metrics_and_licence():
    card = model_card(FULL, SPACE, LORA)
    for fact in (
        "97.50%",
        "0.1000 nats",
        "96 of a budget of 1,000",
        "apache-2.0",
        "train 800, val 200",
        "train 300 to 500, val 100",
        "- one val image is in train too",
        "1.5e-07",
        "arXiv 2306.07967",
    ):
        assert fact in card


def test_card_tells_macro_accuracy_and_the_metric_that_the_subnet_was_chosen_by():
    measured = {"val_macro_accuracy": 0.875, "metric": "MulticlassF1Score", "val_metric": 0.8625, "test_metric": None}
    card = model_card(FULL | {"metrics": FULL["metrics"] | measured}, SPACE, LORA)
    assert "| macro accuracy on val | 87.50% |" in card
    assert "| MulticlassF1Score on val | 0.8625 |" in card
    assert "on test" not in card.replace("test played", "")
    assert "chosen by its MulticlassF1Score on val" in card


def test_card_names_the_base_model_unless_a_file_took_its_weights_place():
    assert "base_model: vit_tiny.augreg" in model_card(FULL, SPACE, LORA)
    assert "base_model" not in model_card(FULL | {"backbone": FULL["backbone"] | {"weights": "own.pth"}}, SPACE, LORA)


def test_card_of_a_search_for_accuracy_names_it_once():
    measured = {"metric": "accuracy", "val_metric": 0.975}
    card = model_card(FULL | {"metrics": FULL["metrics"] | measured}, SPACE, LORA)
    assert card.count("97.50%") == 1 and "chosen by its accuracy on val" in card


def test_card_has_a_row_for_every_layer_with_its_share():
    card = model_card(FULL, SPACE, LORA)
    assert "| `blocks.0.fc1` | · | lora 4 | · | · | · | 48 | ████████ |" in card
    assert "| `blocks.0.fc2` |" in card


def test_card_tells_accuracy_on_further_test_sets_and_among_how_many_classes():
    metrics = FULL["metrics"] | {"also_test": {"sketch": {"accuracy": 0.5, "loss": 1.0, "examples": 1200}}}
    data = FULL["data"] | {"also_test": {"sketch": {"classes": 1}}}
    card = model_card(FULL | {"metrics": metrics, "data": data}, SPACE, LORA)
    assert "| accuracy on sketch | 50.00% (1,200 images, among 1 classes) |" in card
    assert "macro accuracy on sketch" not in card


def test_card_tells_the_metric_on_further_test_sets_too():
    found = {"accuracy": 0.5, "macro_accuracy": 0.375, "metric": 0.4125, "loss": 1.0, "examples": 1200}
    metrics = FULL["metrics"] | {"metric": "MulticlassF1Score", "also_test": {"sketch": found}}
    card = model_card(FULL | {"metrics": metrics}, SPACE, LORA)
    assert "| macro accuracy on sketch | 37.50% |" in card
    assert "| MulticlassF1Score on sketch | 0.4125 |" in card


def test_what_was_not_measured_is_not_claimed():
    card = model_card(BARE, SPACE, LORA)
    assert "accuracy" not in card
    assert "None" not in card
    assert "accuracy on test" not in model_card(FULL, SPACE, LORA)


def test_an_unknown_licence_is_said_to_be_unknown():
    assert "not recorded" in model_card(BARE, SPACE, LORA)
    assert "\nlicense:" not in model_card(BARE, SPACE, LORA)


def test_loading_code_is_that_of_the_library():
    assert 'timm.create_model("local-dir:FOLDER", pretrained=True)' in model_card(BARE, SPACE, LORA)
    card = model_card(BARE | {"library": "transformers", "architecture": "BertForSequenceClassification"}, SPACE, LORA)
    assert "AutoModelForSequenceClassification.from_pretrained(FOLDER)" in card and "AutoTokenizer.from_pretrained(FOLDER)" in card
    card = model_card(BARE | {"library": "transformers", "architecture": "GPT2LMHeadModel"}, SPACE, LORA)
    assert "GPT2LMHeadModel.from_pretrained(FOLDER)" in card and "Tokenizer" not in card


def test_card_of_texts_counts_texts_and_tells_how_long_they_may_be():
    data = FULL["data"] | {"kind": "texts", "also_test": {"tweets": {"classes": 2}}}
    further = {"also_test": {"tweets": {"accuracy": 0.5, "examples": 40}}}
    texts = {"library": "transformers", "backbone": {"name": "transformers:owner/bert"}, "data": data, "text": {"max_length": 128}}
    card = model_card(FULL | texts | {"metrics": further}, SPACE, LORA)
    assert "| texts per class | train 300 to 500, val 100 |" in card
    assert "| accuracy on tweets | 50.00% (40 texts, among 2 classes) |" in card
    assert "| longest text, in tokens | 128; longer ones are cut |" in card
    assert "base_model: owner/bert" in card
    assert "library_name: transformers" in card


def test_card_tells_baselines_inside_the_supernet_and_alone():
    rows = [
        {"source": "lora", "parameters": 96, "val_accuracy": 0.5, "test_accuracy": None},
        {"source": "lora", "parameters": 96, "val_accuracy": 0.625, "test_accuracy": 0.75, "epochs": 60},
    ]
    card = model_card(FULL | {"baselines": rows}, SPACE, LORA)
    assert "| lora | inside the supernet | 96 | 50.00% |  |" in card
    assert "| lora | alone, 60 epochs | 96 | 62.50% | 75.00% |" in card
    assert "Baselines" not in model_card(FULL | {"baselines": []}, SPACE, LORA)


def test_card_of_one_trained_on_val_too_tells_what_it_was_before():
    before = {"val_accuracy": 0.9, "test_accuracy": 0.8}
    metrics = {"trained_on": "train+val", "test_accuracy": 0.85, "test_loss": 0.2, "before": before}
    card = model_card(FULL | {"metrics": metrics}, SPACE, LORA)
    assert "| accuracy on test | 85.00% (cross-entropy 0.2000 nats) |" in card
    assert "| accuracy on test before it was trained on train+val | 80.00% |" in card
    assert "| accuracy on val before it was trained on train+val | 90.00% |" in card
    assert "| accuracy on val |" not in card and "chosen by its accuracy on val" in card
