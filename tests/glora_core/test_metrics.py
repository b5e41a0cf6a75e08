"""Metrics by name: the table is what torchmetrics offers, and a fitness is what numpy says it is, on data with rare and missing classes."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics import classification

from glora_core.data.images import ImageSplit
from glora_core.data.text import TextSplit
from glora_core.errors import ConfigInvalid, DataInvalid, LibraryMissing
from glora_core.evaluation import Score, score
from glora_core.metrics import METRIC_NAMES, OWN, REFUSED, SIGNS, UNMEASURED, check_metric, own_value

CLASSES = 4


class Table(nn.Module):
    """Logits looked up by the first pixel of an image."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[images[:, 0, 0, 0].round().long()]


def table_and_split(labels: Tensor, seed: int = 0) -> tuple[Table, ImageSplit]:
    """A model that is right more often than not, and as many images as labels."""
    logits = torch.randn(len(labels), CLASSES, generator=torch.Generator().manual_seed(seed))
    logits[torch.arange(len(labels)), labels] += 1.0
    pixels = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).contiguous()
    return Table(logits), ImageSplit(pixels, labels, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))


IMBALANCED = torch.tensor([0] * 60 + [1] * 20 + [2] * 7 + [3] * 3)[torch.randperm(90, generator=torch.Generator().manual_seed(1))]
WITHOUT_CLASS_2 = torch.tensor([0] * 30 + [1] * 8 + [3] * 2)


def measured(metric: str, labels: Tensor = IMBALANCED, batch_size: int = 7) -> Score:
    return score(*table_and_split(labels), batch_size, metric=metric)


def confusion(labels: Tensor) -> np.ndarray:
    """(wanted, given), counted one by one."""
    model, _ = table_and_split(labels)
    counts = np.zeros((CLASSES, CLASSES))
    for wanted, given in zip(labels.tolist(), model.logits.argmax(-1).tolist(), strict=True):
        counts[wanted, given] += 1
    return counts


def f1(labels: Tensor) -> float:
    counts = confusion(labels)
    seen = (counts.sum(0) + counts.sum(1)) > 0
    return float((2 * np.diag(counts)[seen] / (counts.sum(0) + counts.sum(1))[seen]).mean())


def matthews(labels: Tensor) -> float:
    counts = confusion(labels)
    total, right, given, wanted = counts.sum(), np.trace(counts), counts.sum(0), counts.sum(1)
    return float((right * total - given @ wanted) / np.sqrt((total**2 - given @ given) * (total**2 - wanted @ wanted)))


def auroc(labels: Tensor) -> float:
    """The share of pairs, one of the class and one of the rest, that are in the right order."""
    model, _ = table_and_split(labels)
    probabilities, of = model.logits.double().softmax(-1).numpy(), labels.numpy()
    pairs = [probabilities[of == c, c][:, None] - probabilities[of != c, c][None, :] for c in range(CLASSES)]
    return float(np.mean([(gap > 0).mean() + (gap == 0).mean() / 2 for gap in pairs]))


def minus_calibration_error(labels: Tensor) -> float:
    """Fifteen equal bins of the largest probability, weighted by how many are in them (Guo et al., arXiv 1706.04599)."""
    model, _ = table_and_split(labels)
    probabilities = model.logits.double().softmax(-1).numpy()
    sure, right = probabilities.max(-1), probabilities.argmax(-1) == labels.numpy()
    bins = np.ceil(sure * 15).astype(int)
    return -float(sum(abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)))


@pytest.mark.parametrize("batch_size", [7, 1000])
@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("MulticlassF1Score", f1),
        ("MulticlassMatthewsCorrCoef", matthews),
        ("MulticlassAUROC", auroc),
        ("MulticlassCalibrationError", minus_calibration_error),
    ],
)
def test_fitness_is_the_metric_as_numpy_computes_it_on_imbalanced_classes(
    metric: str, expected: Callable[[Tensor], float], batch_size: int
) -> None:
    assert measured(metric, batch_size=batch_size).fitness == pytest.approx(expected(IMBALANCED), abs=1e-6)


def test_outputs_that_lie_between_0_and_1_are_not_taken_for_probabilities() -> None:
    model, split = table_and_split(IMBALANCED)
    shrunk = Table((model.logits - model.logits.min()) / (model.logits.max() - model.logits.min()))
    sure, right = shrunk.logits.double().softmax(-1).max(-1).values, shrunk.logits.argmax(-1) == IMBALANCED

    found = score(shrunk, split, 7, metric="MulticlassCalibrationError").fitness

    assert float(sure.max()) < 6 / 15 and float(sure.min()) > 3 / 15  # of the fifteen bins, three are in use
    bins = [(sure > low / 15) & (sure <= (low + 1) / 15) for low in (3, 4, 5)]
    assert found == pytest.approx(-sum(abs(float(right[b].double().sum() - sure[b].sum())) for b in bins) / len(sure), abs=1e-6)


@pytest.mark.parametrize("labels", [IMBALANCED, WITHOUT_CLASS_2], ids=["imbalanced", "a class absent"])
def test_macro_accuracy_is_the_mean_recall_of_the_classes_that_are_there(labels: Tensor) -> None:
    counts = confusion(labels)
    present = counts.sum(1) > 0
    expected = (np.diag(counts)[present] / counts.sum(1)[present]).mean()

    found = measured("macro-accuracy", labels)

    assert found.macro_accuracy == found.fitness == pytest.approx(expected, abs=1e-15)
    assert found.macro_accuracy != found.accuracy == np.trace(counts) / len(labels)


def test_given_answers_of_a_class_that_is_absent_cost_macro_accuracy_no_term() -> None:
    assert confusion(WITHOUT_CLASS_2)[:, 2].sum() > 0
    assert measured("macro-accuracy", WITHOUT_CLASS_2).fitness > measured("MulticlassRecall", WITHOUT_CLASS_2).fitness


@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_whatever_the_fitness_the_rest_of_a_score_is_the_same(metric: str) -> None:
    found, plain = measured(metric), measured("accuracy")
    assert (found.accuracy, found.macro_accuracy, found.loss, found.examples) == (
        plain.accuracy,
        plain.macro_accuracy,
        plain.loss,
        plain.examples,
    )
    assert plain.fitness == plain.accuracy


@pytest.mark.parametrize("metric", METRIC_NAMES)
@pytest.mark.parametrize("labels", [WITHOUT_CLASS_2, torch.zeros(12, dtype=torch.int64)], ids=["a class absent", "one class"])
def test_every_metric_is_a_finite_number_where_classes_are_absent(metric: str, labels: Tensor) -> None:
    assert np.isfinite(measured(metric, labels).fitness)


@pytest.mark.parametrize("metric", SIGNS)
def test_a_model_that_answers_better_has_the_higher_fitness(metric: str) -> None:
    model, split = table_and_split(IMBALANCED)
    perfect = Table(torch.nn.functional.one_hot(IMBALANCED, CLASSES) * 100.0)
    assert score(perfect, split, 7, metric=metric).fitness > score(model, split, 7, metric=metric).fitness


@pytest.mark.parametrize("metric", SIGNS)
def test_outputs_that_are_not_finite_give_the_worst_fitness(metric: str) -> None:
    model, split = table_and_split(IMBALANCED)
    model.logits[5] = float("nan")
    assert score(model, split, 7, metric=metric).fitness == UNMEASURED


def test_tokens_that_are_not_asked_for_play_no_part() -> None:
    labels = torch.tensor([[0, 1, -100], [-100, 1, 2], [-100, -100, -100]])
    split = TextSplit(torch.arange(9).reshape(3, 3), torch.ones(3, 3, dtype=torch.int64), labels)
    logits = torch.randn(9, CLASSES, generator=torch.Generator().manual_seed(2))

    found = score(Texts(logits), split, 2, metric="MulticlassF1Score")

    asked = labels.flatten() >= 0
    alone = Table(logits[asked])
    images = table_and_split(labels.flatten()[asked])[1]
    assert found == score(alone, images, 3, metric="MulticlassF1Score")
    assert found.examples == 4


class Texts(nn.Module):
    """Logits looked up by the token."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits[input_ids])


def test_a_split_that_asks_for_no_answer_is_refused() -> None:
    split = TextSplit(torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64), torch.full((2, 3), -100))
    with pytest.raises(DataInvalid, match="no answer is asked for"):
        score(Texts(torch.zeros(1, CLASSES)), split, 7)


def test_the_table_holds_every_multiclass_metric_that_torchmetrics_offers() -> None:
    offered = {name for name in classification.__all__ if name.startswith("Multiclass")}
    assert offered == SIGNS.keys() | REFUSED.keys()
    assert not SIGNS.keys() & REFUSED.keys()


@pytest.mark.parametrize("name", SIGNS)
def test_the_sign_of_a_metric_is_torchmetrics_own_where_it_says(name: str) -> None:
    assert getattr(classification, name).higher_is_better in (None, SIGNS[name] > 0)


@pytest.mark.parametrize(
    ("name", "near"),
    [("F1Score", "MulticlassF1Score"), ("MulticlassF1", "MulticlassF1Score"), ("macro_accuracy", "macro-accuracy"), ("auroc", "AUROC")],
)
def test_an_unknown_name_is_refused_with_those_that_come_near(name: str, near: str) -> None:
    with pytest.raises(ConfigInvalid, match=f"{name!r} is unknown; did you mean [^?]*{near}.*accepted: accuracy, macro-accuracy"):
        check_metric(name)


@pytest.mark.parametrize("name", REFUSED)
def test_a_metric_that_cannot_be_a_fitness_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigInvalid, match=f"{REFUSED[name]}; accepted"):
        check_metric(name)


@pytest.mark.parametrize("classes", [1, 4097])
def test_more_classes_than_a_metric_can_count_are_refused(classes: int) -> None:
    with pytest.raises(ConfigInvalid, match=f"2 to 4,096 classes, here are {classes:,}"):
        check_metric("MulticlassF1Score", classes)
    assert [check_metric(name, classes) for name in OWN] == list(OWN)


def test_the_value_of_a_metric_of_which_less_is_better_is_minus_its_fitness() -> None:
    assert own_value("MulticlassCalibrationError", -0.25) == own_value("MulticlassF1Score", 0.25) == own_value("accuracy", 0.25) == 0.25


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(LibraryMissing, match="pip install torchmetrics"):
        measured("MulticlassF1Score")


def test_names_are_checked_without_torch_and_scores_without_torchmetrics() -> None:
    code = (
        "import sys, glora_core.metrics; assert 'torch' not in sys.modules; import glora_core.api; assert 'torchmetrics' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
