"""The training step and the loop, from epoch to epoch; one process or many, same code.

Every random draw is keyed by (seed, purpose, counter), so a run resumed from a checkpoint continues bit for bit.
Imports torch; knows nothing of where it runs. Several processes only need an initialised `torch.distributed`.
"""

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from glora_core.backbones import Inputs, outputs, run
from glora_core.calibration import calibrate
from glora_core.configs import SubnetConfig, decode
from glora_core.data.augment import augment
from glora_core.data.split import Split, answers
from glora_core.errors import ConfigInvalid, DataInvalid, Diverged
from glora_core.evaluation import Score
from glora_core.sampling import stream
from glora_core.supernet import Supernet
from glora_core.training.drop_path import DropPaths
from glora_core.training.early_stop import EarlyStop
from glora_core.training.policy import SubnetSampler
from glora_core.training.probe import PATIENCE, Probe, check_learning
from glora_core.training.settings import Progress, TrainingSettings
from glora_core.training.turning import Turning

_ORDER, _AUGMENT, _DROP_PATH = 0, 3, 6
CALIBRATED = 64
"""Training examples that a start is measured on."""


class Trainer:
    """Trains a supernet epoch by epoch; its state can be saved after any epoch and taken up again.

    Args:
        supernet: changed in place; put into eval mode, so that the statistics of a frozen batch norm stay as they are.
        split: the training split, whole in every process; each trains its share of every batch.
        settings: see `TrainingSettings`.
        probe: subnets to score along the way; nothing trained depends on it.
        teacher: a network of the backbone's kind, with the averaged weights of the settings' teachers.

    Raises:
        ConfigInvalid: the settings name another form of entanglement than the supernet has, a patience without a probe that it could be
            judged by, drop paths that the backbone does not have, or teachers where no network is given, or the other way round.
        DataInvalid: the split is empty.
    """

    def __init__(
        self, supernet: Supernet, split: Split, settings: TrainingSettings, probe: Probe | None = None, teacher: nn.Module | None = None
    ) -> None:
        if not len(split):
            raise DataInvalid("the training split is empty; one example at least is needed")
        if settings.entanglement != supernet.entanglement:
            raise ConfigInvalid(f"entanglement {settings.entanglement!r} is not this supernet's, which is {supernet.entanglement!r}")
        if settings.patience is not None and probe is None:
            raise ConfigInvalid(f"patience is {settings.patience}, and nothing is probed on val; accepted is None, or a probe")
        if bool(settings.teachers) != (teacher is not None):
            raise ConfigInvalid(f"teachers are {list(settings.teachers)}; accepted are some with their network, or none without one")
        self.supernet, self.split, self.settings, self.probe = supernet.eval(), split, settings, probe
        self._teacher = None if teacher is None else teacher.eval()
        self._drop_paths = DropPaths(supernet.backbone, settings.drop_path) if settings.drop_path else None
        self._early = EarlyStop(settings.patience) if settings.patience is not None else None
        self._turning: Turning | None = None
        if "affine" in settings.augment:
            self._turning = Turning(split.labels, settings.label_smoothing, _outputs(supernet.backbone))
        self.epoch = 0
        self._batch_size = settings.batch_of(len(split))
        self.steps_per_epoch = math.ceil(len(split) / self._batch_size)
        self._rank, self._world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self._parameters = [p for _, p in supernet.trainable()]
        self._optimizer = torch.optim.AdamW(self._groups(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self._fixed = decode(settings.fixed) if settings.fixed else None
        self._sampler = SubnetSampler(supernet.space, settings, settings.epochs * self.steps_per_epoch)
        self._advice = f"a lower learning rate than {settings.learning_rate} may help"
        if all(layer.support.untrained for _, layer in supernet.layers()):
            calibrate(supernet, calibrating_inputs(split), settings.seed)
            self._share_start()
        self._averages = [p.detach().clone() for p in self._parameters] if settings.ema or settings.cycles > 1 else []
        self._largest, self._smallest = (supernet.space.extreme(largest=large) for large in (True, False))

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to train: the last epoch is over, or a probe has ended the training."""
        return self.epoch >= self.settings.epochs or (self._early is not None and self._early.stopped)

    def fit(self, on_epoch: Callable[[Progress], None] = lambda progress: None) -> None:
        """Train up to the last epoch, or to where patience ends, calling `on_epoch` after each.

        Raises:
            Diverged: a loss is not finite.
            NotLearning: with a probe: half trained, 50 steps at least, and no better than guessing.
        """
        start = time.monotonic()
        self.supernet.eval()
        while not self.finished:
            loss = self._train_epoch()
            if self._turning is not None:
                self._turning.note(loss)
            self.epoch += 1
            if self.settings.cycles > 1 and self.epoch in self.settings.cycle_ends:
                self._end_cycle()
            if self.epoch == self.settings.epochs:
                self._settle_averages()
            rate = self.settings.learning_rate * self._schedule(self.epoch * self.steps_per_epoch - 1)
            accuracies, val_loss = self._probe(loss)
            if self._early is not None and self.finished:
                self._early.restore(self._parameters)
            on_epoch(Progress(self.epoch, self.settings.epochs, loss, rate, time.monotonic() - start, accuracies, val_loss))

    def state(self) -> dict[str, Any]:
        """What `load_state` needs to go on after the current epoch."""
        return {
            "epoch": self.epoch,
            "trainable": self.supernet.trainable_state(),
            "optimizer": deepcopy(self._optimizer.state_dict()),
            "averages": [average.cpu().clone() for average in self._averages],
            "early_stop": self._early.state() if self._early else None,
            "turned": self._turning.share if self._turning else None,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up training where `state` was taken."""
        self.epoch = state["epoch"]
        self.supernet.load_trainable_state(state["trainable"])
        self._optimizer.load_state_dict(deepcopy(state["optimizer"]))
        for average, value in zip(self._averages, state["averages"], strict=True):
            average.copy_(value)
        if self._early is not None:
            self._early.load_state(state["early_stop"])
        if self._turning is not None:
            self._turning.share = state["turned"]

    def _share_start(self) -> None:
        """Start as the first process does: sums of another machine may differ in their last bits."""
        if self._world > 1:
            for parameter in self._parameters:
                dist.broadcast(parameter.detach(), 0)

    def _probe(self, loss: float) -> tuple[dict[str, float], float | None]:
        """Accuracies and mean loss of the probed subnets, in the epochs whose turn it is."""
        if self.probe is None or (self.epoch % self.probe.every and self.epoch < self.settings.epochs):
            return {}, None
        scores = self.probe.scores(self.supernet, self._batch_size)
        accuracies, val_loss = {name: score.accuracy for name, score in scores.items()}, self._mean_loss(scores.values())
        if self._early is not None:
            last = self.epoch == self.settings.epochs  # the averages have taken their place already
            self._early.note(self.epoch, val_loss, self._parameters if last else self._averages or self._parameters)
        judged = 2 * self.epoch >= self.settings.epochs or self.finished
        if judged and self.epoch * self.steps_per_epoch >= PATIENCE:
            smoothing, classes = self.settings.label_smoothing, _outputs(self.supernet.backbone)
            check_learning(loss, self.split.labels, self.probe, accuracies, smoothing, classes)
        return accuracies, val_loss

    def _mean_loss(self, scores: Collection[Score]) -> float:
        """Of the probed subnets, in nats; the first process's in all, since all must stop where one does."""
        mean = sum(score.loss / len(scores) for score in scores)
        if self._world == 1:
            return mean
        told = torch.tensor(mean, dtype=torch.float64, device=self._parameters[0].device)
        dist.broadcast(told, 0)
        return float(told)

    def _groups(self) -> list[dict[str, Any]]:
        """The trained numbers by the factor on their learning rate."""
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.supernet.trainable():
            _, support, block = name.rpartition(".support.")
            part = block[0] if support else "head"
            groups.setdefault(self.settings.tensor_rates.get(part, 1.0), []).append(parameter)
        return [{"params": members, "factor": factor} for factor, members in groups.items()]

    @torch.no_grad()
    def _end_cycle(self) -> None:
        """Take what a cycle ended with into the mean, and start the optimiser anew."""
        ended = self.settings.cycle_ends.index(self.epoch) + 1
        torch._foreach_lerp_(self._averages, [p.detach() for p in self._parameters], 1 / ended)
        self._optimizer.state.clear()

    @torch.no_grad()
    def _settle_averages(self) -> None:
        """Put the running averages in the place of what they are averages of."""
        for average, parameter in zip(self._averages, self._parameters, strict=False):
            parameter.copy_(average)

    def _train_epoch(self) -> float:
        order = torch.from_numpy(stream(self.settings.seed, _ORDER, self.epoch).permutation(len(self.split)))
        total = 0.0
        for index, rows in enumerate(torch.split(order, self._batch_size)):
            step = self.epoch * self.steps_per_epoch + index
            for group in self._optimizer.param_groups:
                group["lr"] = self.settings.learning_rate * self._schedule(step) * group["factor"]
            total += self._step(step, rows) * len(rows)
        if not all(bool(parameter.isfinite().all()) for parameter in self._parameters):
            raise Diverged(f"trained tensors are no longer finite after epoch {self.epoch + 1}; {self._advice}")
        return total / len(self.split)

    def _step(self, step: int, rows: Tensor) -> float:
        """One optimiser step on the rows of a global batch; returns the mean loss over the batch."""
        inputs, labels = self.split.take(rows[self._rank :: self._world].to(self.split.labels.device))
        if self.settings.augment:
            inputs = self._augmented(step, inputs, len(rows))
        share = self._share(labels, rows)
        self._optimizer.zero_grad(set_to_none=True)
        with self._dropping(step, len(rows)):
            loss = self._backward(step, inputs, labels, share) if bool((labels >= 0).any()) else 0.0
        loss = self._reduce(loss)
        if not math.isfinite(loss):
            raise Diverged(f"training loss became {loss} in step {step}; {self._advice}")
        if self.settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self.settings.clip_norm)
        self._optimizer.step()
        if self.settings.ema:
            decay = min(self.settings.ema, (1 + step) / (10 + step))  # a short memory while the numbers still move fast
            torch._foreach_lerp_(self._averages, [p.detach() for p in self._parameters], 1 - decay)
        return loss

    def _augmented(self, step: int, inputs: Inputs, count: int) -> Tensor:
        """The images of this process out of a global batch of `count`, each changed as in a single process."""
        if not isinstance(inputs, Tensor):
            raise ConfigInvalid(f"augment {', '.join(self.settings.augment)} changes images; texts are trained without")
        rng, rows = stream(self.settings.seed, _AUGMENT, step), slice(self._rank, None, self._world)
        return augment(inputs, self.settings.augment, rng, rows, count, turned=self._turning.share if self._turning else 0.0)

    def _dropping(self, step: int, count: int) -> AbstractContextManager[None]:
        """Residual branches left out of a step on a global batch of `count`, if any are."""
        if self._drop_paths is None:
            return nullcontext()
        rng = stream(self.settings.seed, _DROP_PATH, step)
        return self._drop_paths.dropping(rng, count, slice(self._rank, None, self._world))

    def _share(self, labels: Tensor, rows: Tensor) -> float:
        """The part of this process in all answers that a global batch asks for."""
        if self._world == 1 or labels.dim() == 1:
            return len(labels) / len(rows)
        return int((labels >= 0).sum()) / max(1, int((self.split.labels[rows.to(labels.device)] >= 0).sum()))

    def _backward(self, step: int, inputs: Inputs, labels: Tensor, share: float) -> float:
        """Gradients of this process's share of a batch, weighted so that they add up to the whole batch's mean."""
        drawn = [self._fixed] if self._fixed else self._sampler.draw(step)
        if "sandwich" not in self.settings.policy:
            taught = self._taught(inputs, labels)
            losses = [self._learn(config, inputs, labels, taught, share / len(drawn))[0] for config in drawn]
            return sum(losses) / len(losses) * share
        loss, taught = self._learn(self._largest, inputs, labels, None, share)
        students = [*drawn, self._smallest] if self.settings.policy == "full-sandwich" else drawn
        for config in students:
            self._learn(config, inputs, labels, taught, share / len(students))
        return loss * share

    def _learn(self, config: SubnetConfig, inputs: Inputs, labels: Tensor, teacher: Tensor | None, weight: float) -> tuple[float, Tensor]:
        """Add a subnet's weighted gradients; returns its loss in nats, and its output (m, classes) as probabilities.

        Where a teacher's probabilities are given, they make up half of what is to be learned.
        """
        self.supernet.set_config(config)
        logits, targets = self._output(self.supernet, inputs, labels)
        wanted: Tensor = targets
        if teacher is not None:
            smooth, classes = self.settings.label_smoothing, logits.shape[-1]
            wanted = 0.5 * ((1 - smooth) * F.one_hot(targets, classes) + smooth / classes) + 0.5 * teacher
        loss = F.cross_entropy(logits, wanted, label_smoothing=0.0 if teacher is not None else self.settings.label_smoothing)
        torch.autograd.backward(loss * weight)
        return float(loss.detach()), logits.detach().softmax(-1)

    @torch.no_grad()
    def _taught(self, inputs: Inputs, labels: Tensor) -> Tensor | None:
        """The teacher's output (m, classes) as probabilities, if there is one."""
        if self._teacher is None:
            return None
        return self._output(partial(run, self._teacher), inputs, labels)[0].softmax(-1)

    def _output(self, network: Callable[[Inputs], Tensor], inputs: Inputs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A network's logits (m, classes) for the answers asked for, and those answers (m,), in the settings' precision."""
        mixed = self.settings.precision == "bfloat16"
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=mixed), _attention(mixed and labels.device.type == "cpu"):
            output = network(inputs)
        return answers(output.float() if mixed else output, labels)

    def _reduce(self, loss: float) -> float:
        """Sum gradients and loss over all processes; tensors that took part in none keep no gradient, as in a single process."""
        if self._world == 1:
            return loss
        used = torch.tensor([parameter.grad is not None for parameter in self._parameters], device=self._parameters[0].device)
        dist.all_reduce(used := used.int(), dist.ReduceOp.MAX)
        for parameter, anywhere in zip(self._parameters, used.tolist(), strict=True):
            if anywhere:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                dist.all_reduce(parameter.grad)
        total = torch.tensor(loss, dtype=torch.float64, device=self._parameters[0].device)
        dist.all_reduce(total)
        return float(total)

    def _schedule(self, step: int) -> float:
        """Share of the peak learning rate: linear warm-up, then a half-cosine to zero; in each cycle."""
        ends = [0, *(end * self.steps_per_epoch for end in self.settings.cycle_ends)]
        number = bisect_right(ends, step)
        step, total = step - ends[number - 1], ends[number] - ends[number - 1]
        warm = max(1, round(total * self.settings.warmup_share))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def calibrating_inputs(split: Split) -> Inputs:
    """Inputs of the examples that a start is measured on: evenly spread, since a split is often in the order of its classes."""
    count = min(CALIBRATED, len(split))
    return split.take(torch.arange(count, device=split.labels.device) * len(split) // count)[0]


def _outputs(backbone: Any) -> int:
    """How wide a network's logits are: as many as its head's classes, or as a language model's words."""
    return outputs(backbone) or int(backbone.config.vocab_size)


def _attention(plain: bool) -> AbstractContextManager[None]:
    """Attention as products of matrices where `plain`: on a CPU in bfloat16, the fused kernel's backward takes 39 % of a ViT's step."""
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
