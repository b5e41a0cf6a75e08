"""How good is a subnet: its accuracy, cross-entropy and fitness on a split, at the speed of the merged model.

`SubnetScorer` writes merged weights into a plain network and runs that; nothing of GLoRA is left in the forward pass.
Deterministic: batch size, precision and number of threads are fixed by the caller and belong to an evaluation's identity.
"""

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glora_core.backbones import run
from glora_core.checks import check_whole
from glora_core.configs import SubnetConfig
from glora_core.data.split import Split, answers
from glora_core.errors import DataInvalid, LibraryMissing
from glora_core.layers.adapted import bias_of
from glora_core.layers.kinds import kind_of, matrix_size
from glora_core.metrics import ACCURACY, MACRO_ACCURACY, OWN, SIGNS, UNMEASURED, check_metric
from glora_core.precision import Precision, check_precision
from glora_core.supernet import Supernet


@dataclass(frozen=True, slots=True)
class Score:
    """What was measured on a split.

    Attributes:
        accuracy: share of right answers, 0–1; where a logit is NaN, the answer is wrong.
        loss: mean cross-entropy in nats, the largest float if not finite.
        examples: number of answers.
        macro_accuracy: mean over the classes that the split has of the share of right answers among theirs, 0–1.
        fitness: value of the metric that was asked for, or minus it where less is better; the lowest float if it or an output of the
            model is not finite.
    """

    accuracy: float
    loss: float
    examples: int
    macro_accuracy: float
    fitness: float


@torch.inference_mode()
def score(
    model: nn.Module,
    split: Split,
    batch_size: int,
    *,
    among: Sequence[int] = (),
    metric: str = ACCURACY,
    precision: Precision = "float32",
) -> Score:
    """The score of a model in eval mode on a split; sums are kept in float64, and the metric is computed on the CPU.

    Args:
        among: ascending labels that answers are chosen from, which the split's must be of: the other logits are left out, and the
            metric is over those classes. All if empty.
        metric: what the fitness is, one of `glora_core.metrics.METRIC_NAMES`.
        precision: of the forward pass; `bfloat16` is automatic mixed precision: products of matrices in it, the rest in float32.

    Raises:
        ConfigInvalid: no such metric or precision, or not with so many classes, or a batch of less than one.
        DataInvalid: the split asks for no answer.
        LibraryMissing: the metric needs torchmetrics, which is not installed.
    """
    check_metric(metric)
    check_precision(precision)
    check_whole("batch_size", batch_size, 1)
    tally: _Tally | None = None
    for inputs, wanted in split.batches(batch_size):
        with torch.autocast(wanted.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = run(model, inputs)
        logits, labels = answers(output, wanted)
        if among:
            columns = torch.tensor(among, device=logits.device)
            logits, labels = logits[:, columns], torch.searchsorted(columns, labels)
        tally = tally or _Tally(metric, logits.shape[-1])
        tally.add(logits, labels)
    if tally is None or not tally.examples:
        raise DataInvalid("a split in which no answer is asked for cannot be scored; one at least is needed")
    return tally.score()


class _Tally:
    """What is counted over the batches of a split: right and wanted answers by class, and the loss."""

    def __init__(self, metric: str, classes: int) -> None:
        self._metric, self._other = metric, None if metric in OWN else _TorchMetric(metric, classes)
        self._right, self._wanted = (torch.zeros(classes, dtype=torch.int64) for _ in range(2))
        self._loss = 0.0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: logits (n, classes), labels (n,)."""
        self._loss += float(F.cross_entropy(logits.double(), labels, reduction="sum"))
        on_cpu, classes = labels.cpu(), logits.shape[-1]
        right = (logits.argmax(-1) == labels) & ~logits.isnan().any(-1)  # argmax answers NaN by the first of them
        self._right += torch.bincount(on_cpu[right.cpu()], minlength=classes)
        self._wanted += torch.bincount(on_cpu, minlength=classes)
        if self._other is not None:
            self._other.add(logits, on_cpu)

    @property
    def examples(self) -> int:
        """How many answers were taken in."""
        return int(self._wanted.sum())

    def score(self) -> Score:
        """The score of all that was taken in."""
        examples, present = self.examples, self._wanted > 0
        accuracy, loss = int(self._right.sum()) / examples, self._loss / examples
        recalls = (self._right[present].double() / self._wanted[present]).tolist()
        macro = math.fsum(recalls) / len(recalls)
        fitness = self._other.fitness() if self._other is not None else {ACCURACY: accuracy, MACRO_ACCURACY: macro}[self._metric]
        return Score(accuracy, loss if math.isfinite(loss) else sys.float_info.max, examples, macro, fitness)


class _TorchMetric:
    """One of torchmetrics' multiclass metrics over the batches of a split, averaged over classes alike where it averages."""

    def __init__(self, name: str, classes: int) -> None:
        made = _torchmetrics_class(check_metric(name, classes))
        macro = {"average": "macro"} if "average" in signature(made).parameters else {}
        self._sign, self._metric = SIGNS[name], made(num_classes=classes, validate_args=False, **macro).set_dtype(torch.float64)
        self._finite = True

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: logits (n, classes), labels (n,) on the CPU.

        As probabilities: torchmetrics would take logits of a batch that happen to lie between 0 and 1 for those.
        """
        probabilities = logits.double().softmax(-1).cpu()
        self._finite = self._finite and bool(probabilities.isfinite().all())
        if self._finite and len(labels):
            self._metric.update(probabilities, labels)

    def fitness(self) -> float:
        """The metric, or minus it where less is better; classes that the split lacks, of which it warns, are its own affair."""
        if not self._finite:
            return UNMEASURED
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = self._sign * float(self._metric.compute())
        return value if math.isfinite(value) else UNMEASURED


def _torchmetrics_class(name: str) -> Any:
    """Loaded on use: importing torchmetrics takes seconds, since it loads transformers where that is installed."""
    try:
        from torchmetrics import classification
    except ModuleNotFoundError as error:
        raise LibraryMissing(f"metric {name!r} needs torchmetrics, which is not installed: pip install torchmetrics") from error
    return getattr(classification, name)


class SubnetScorer:
    """Scores one subnet config after another with a plain network.

    Only layers whose config differs from the one loaded before are merged again, always from the untouched W0, so that
    a score never depends on what was scored before.

    Args:
        supernet: the trained supernet.
        plain: an unadapted network of the same architecture; its weights are overwritten. A copy of the supernet's own if absent.
        precision: of the forward passes, see `score`; merging stays as exact as it is.

    Raises:
        ConfigInvalid: no such precision.
    """

    def __init__(self, supernet: Supernet, plain: nn.Module | None = None, precision: Precision = "float32") -> None:
        self._precision = check_precision(precision)
        self.supernet, self.plain = supernet, (plain or supernet.bare()).eval()
        give_biases(self.plain, supernet.merged_state(supernet.space.extreme(largest=True)))
        self._slots: dict[str, Tensor] = dict(self.plain.state_dict(keep_vars=True))
        with torch.no_grad():
            for name, value in supernet.backbone.state_dict().items():
                if name in self._slots:
                    self._slots[name].copy_(value)
        self._loaded: list[object] = [None] * len(supernet.space.layers)

    def load(self, config: SubnetConfig) -> nn.Module:
        """The plain network with a config merged into it. Raises ConfigInvalid for a config outside the supernet's space."""
        self.supernet.check(config)
        with torch.no_grad():
            for index, layer in enumerate(config):
                if self._loaded[index] != layer:
                    merged = self.supernet.merged_layer(index, config)
                    bias = f"{self.supernet.space.layers[index].name}.bias"
                    if bias in self._slots and bias not in merged:
                        self._slots[bias].zero_()
                    for name, value in merged.items():
                        self._slots[name].copy_(value)
                    self._loaded[index] = layer
        return self.plain

    def score(self, config: SubnetConfig, split: Split, batch_size: int, *, among: Sequence[int] = (), metric: str = ACCURACY) -> Score:
        """The score of a config on a split, among some labels or all; see `score`."""
        return score(self.load(config), split, batch_size, among=among, metric=metric, precision=self._precision)


def give_biases(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give adaptable layers of `model` a zero bias where `state` has one and they lack it."""
    for name, module in model.named_modules():
        if kind_of(module) is not None and bias_of(module) is None and f"{name}.bias" in state:
            weight = module.get_parameter("weight")
            module.register_parameter("bias", nn.Parameter(weight.new_zeros(matrix_size(module)[0])))
