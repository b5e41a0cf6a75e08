"""Training a supernet: which subnets a step trains, the step, and the loop; one process or many, same code.

Every random draw is keyed by (seed, purpose, counter), so a run resumed from a checkpoint continues bit for bit.
Imports torch; knows nothing of where it runs. Several processes only need an initialised `torch.distributed`.
"""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from glora_core.backbones import Inputs
from glora_core.configs import SubnetConfig, decode
from glora_core.data.split import Split, answers
from glora_core.errors import ConfigInvalid, Diverged
from glora_core.sampling import stream
from glora_core.supernet import Supernet

Policy = Literal["random", "sandwich", "fixed"]
_ORDER, _SUBNET = 0, 1


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a supernet, or one subnet alone, is trained.

    Args:
        epochs: passes over the training split.
        batch_size: images of a step, over all processes together.
        learning_rate: peak, of AdamW.
        weight_decay: decoupled, on the numbers that the step's subnets use and on no others.
        clip_norm: largest Euclidean norm of the step's gradient, over the numbers it uses; unbounded if None.
        warmup: share of all steps over which the learning rate rises linearly; a half-cosine to zero follows.
        policy: `random`, one random subnet per step (the paper); `sandwich`, the largest subnet on the labels and one
            random subnet on half labels, half the largest's output; `fixed`, always the config of `fixed`.
        fixed: canonical text of the subnet config that `fixed` trains.
        start: key of the supernet from whose weights a fixed subnet is trained on; from scratch if absent.
        entanglement: form of weight sharing, `normalised` or `paper`.
        seed: of initial values, order of examples and subnets.
    """

    epochs: int = 60
    batch_size: int = 50
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    warmup: float = 0.1
    policy: Policy = "random"
    fixed: str | None = None
    start: str | None = None
    entanglement: str = "normalised"
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.policy == "fixed") != (self.fixed is not None):
            raise ConfigInvalid("policy 'fixed' and a fixed subnet config go together")
        if self.start is not None and self.fixed is None:
            raise ConfigInvalid("only a fixed subnet can start from another supernet")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished epoch: mean training loss in nats, learning rate of its last step, seconds since the loop began."""

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    seconds: float


class Trainer:
    """Trains a supernet epoch by epoch; its state can be saved after any epoch and taken up again.

    Args:
        supernet: changed in place.
        split: the training split, whole in every process; each trains its share of every batch.
        settings: see `TrainingSettings`.
    """

    def __init__(self, supernet: Supernet, split: Split, settings: TrainingSettings) -> None:
        self.supernet, self.split, self.settings = supernet, split, settings
        self.epoch = 0
        self.steps_per_epoch = math.ceil(len(split) / settings.batch_size)
        self._rank, self._world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self._parameters = [p for _, p in supernet.trainable()]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self._fixed = decode(settings.fixed) if settings.fixed else None
        self._advice = f"a lower learning rate than {settings.learning_rate} may help"
        self._largest = supernet.space.extreme(largest=True)

    def fit(self, on_epoch: Callable[[Progress], None] = lambda progress: None) -> None:
        """Train up to the last epoch, calling `on_epoch` after each.

        Raises:
            Diverged: a loss is not finite.
        """
        start = time.monotonic()
        self.supernet.eval()
        while self.epoch < self.settings.epochs:
            loss = self._train_epoch()
            self.epoch += 1
            rate = float(self._optimizer.param_groups[0]["lr"])
            on_epoch(Progress(self.epoch, self.settings.epochs, loss, rate, time.monotonic() - start))

    def state(self) -> dict[str, Any]:
        """What `load_state` needs to go on after the current epoch."""
        return {"epoch": self.epoch, "trainable": self.supernet.trainable_state(), "optimizer": deepcopy(self._optimizer.state_dict())}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up training where `state` was taken."""
        self.epoch = state["epoch"]
        self.supernet.load_trainable_state(state["trainable"])
        self._optimizer.load_state_dict(deepcopy(state["optimizer"]))

    def _train_epoch(self) -> float:
        order = torch.from_numpy(stream(self.settings.seed, _ORDER, self.epoch).permutation(len(self.split)))
        total = 0.0
        for index, rows in enumerate(torch.split(order, self.settings.batch_size)):
            step = self.epoch * self.steps_per_epoch + index
            for group in self._optimizer.param_groups:
                group["lr"] = self.settings.learning_rate * self._schedule(step)
            total += self._step(step, rows) * len(rows)
        if not all(bool(parameter.isfinite().all()) for parameter in self._parameters):
            raise Diverged(f"trained tensors are no longer finite after epoch {self.epoch + 1}; {self._advice}")
        return total / len(self.split)

    def _step(self, step: int, rows: Tensor) -> float:
        """One optimiser step on the rows of a global batch; returns the mean loss over the batch."""
        inputs, labels = self.split.take(rows[self._rank :: self._world].to(self.split.labels.device))
        share = self._share(labels, rows)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._backward(step, inputs, labels, share) if bool((labels >= 0).any()) else 0.0
        loss = self._reduce(loss)
        if not math.isfinite(loss):
            raise Diverged(f"training loss became {loss} in step {step}; {self._advice}")
        if self.settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self.settings.clip_norm)
        self._optimizer.step()
        return loss

    def _share(self, labels: Tensor, rows: Tensor) -> float:
        """The part of this process in all answers that a global batch asks for."""
        if self._world == 1 or labels.dim() == 1:
            return len(labels) / len(rows)
        return int((labels >= 0).sum()) / max(1, int((self.split.labels[rows.to(labels.device)] >= 0).sum()))

    def _backward(self, step: int, inputs: Inputs, labels: Tensor, share: float) -> float:
        """Gradients of this process's share of a batch, weighted so that they add up to the whole batch's mean."""
        if self.settings.policy == "sandwich":
            logits, targets = self._answers(self._largest, inputs, labels)
            loss = F.cross_entropy(logits, targets)
            torch.autograd.backward(loss * share)
            mixed = 0.5 * F.one_hot(targets, logits.shape[-1]) + 0.5 * logits.detach().softmax(-1)
            student, _ = self._answers(self._random(step), inputs, labels)
            torch.autograd.backward(F.cross_entropy(student, mixed) * share)
        else:
            loss = F.cross_entropy(*self._answers(self._fixed or self._random(step), inputs, labels))
            torch.autograd.backward(loss * share)
        return float(loss.detach()) * share

    def _answers(self, config: SubnetConfig, inputs: Inputs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and labels of every answer that is asked for, under a config."""
        self.supernet.set_config(config)
        return answers(self.supernet(inputs), labels)

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

    def _random(self, step: int) -> SubnetConfig:
        """The random subnet of a step: every layer's config uniform over the space, independent of any budget."""
        configs = self.supernet.space.layer_configs
        drawn = stream(self.settings.seed, _SUBNET, step).integers([len(allowed) for allowed in configs])
        return tuple(allowed[int(i)] for allowed, i in zip(configs, drawn, strict=True))

    def _schedule(self, step: int) -> float:
        """Share of the peak learning rate: linear warm-up, then a half-cosine to zero."""
        total = self.settings.epochs * self.steps_per_epoch
        warm = max(1, round(total * self.settings.warmup))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
