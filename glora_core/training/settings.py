"""How a supernet, or one subnet alone, is trained; and what is known after each epoch. Plain Python, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args

from glora_core.augmentations import AUGMENTATIONS
from glora_core.checks import check_positive, check_share, check_whole
from glora_core.configs import TENSORS
from glora_core.errors import ConfigInvalid
from glora_core.precision import Precision

Policy = Literal["random", "sandwich", "full-sandwich", "fixed"]
Sampling = Literal["uniform", "fair", "progressive", "budget"]
Entanglement = Literal["normalised", "paper"]
BATCHES = (8, 50)
"""Least and most examples of a step where nothing else is asked."""
STEPS = 8
"""Steps of an epoch, between these bounds: a network that is trained for few epochs on few examples lacks steps first of all
(docs/decisions/0019-small-data-small-batches.md)."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a supernet, or one subnet alone, is trained.

    Args:
        epochs: passes over the training split.
        batch_size: examples of a step, over all processes together; None: see `batch_of`.
        learning_rate: peak, of AdamW.
        tensor_rates: factors on the learning rate of single support tensors (`A` to `E`) and of the `head`; 1 where absent.
        weight_decay: decoupled, on the numbers that the step's subnets use and on no others.
        clip_norm: largest Euclidean norm of the step's gradient, over the numbers it uses; unbounded if None.
        warmup: share of all steps over which the learning rate rises linearly; a half-cosine to zero follows.
        warmup_epochs: instead of `warmup`: so many epochs.
        drop_path: how often the residual branches of the backbone's last block are left out in training, for each example on its own;
            those of the blocks before it less often, down to never for the first, as in timm; 0: none are.
        patience: epochs without a lower mean loss of the probed subnets on val after which a probe ends the training. Numbers kept in
            the end are then those of the epoch of the lowest loss (with `ema`, their averages as of then); None: trained to the last.
        augment: random changes of training images: any of `crop`, `affine`, `flip` and `colour` (`glora_core.data.augment`). `affine`
            changes the more of them, the longer the network has known what it is shown (`glora_core.training.turning`).
        label_smoothing: share of every label spread over all classes.
        ema: decay, by step, of the running average of all trained numbers that takes their place after the last epoch; 0: none.
        cycles: how often the schedule is played, in stretches of equally many epochs, each with an optimiser of its own; the mean of what
            the stretches ended with takes the place of the trained numbers after the last epoch (arXiv 1803.05407).
        precision: of the forward and backward pass; `bfloat16` is automatic mixed precision, trained numbers stay float32.
        policy: `random`, random subnets (the paper); `sandwich`, the largest subnet on the labels and random subnets on half
            labels, half the largest's output; `full-sandwich`, also the smallest, taught as the random ones; `fixed`, always the
            config of `fixed`.
        subnets: random subnets of a step.
        sampling: how these are drawn. `uniform`: every layer's config uniform over the space. `fair`: likewise, but in every run of
            as many draws as a support tensor has choices each of them comes once. `progressive`: each layer is the largest with a
            probability that falls from 1 to 0 over the first half of the steps, else uniform. `budget`: uniform over the subnets
            within `budget`.
        budget: upper bound on trainable parameters, head not counted, of subnets drawn by `budget`.
        fixed: canonical text of the subnet config that `fixed` trains.
        start: key of the supernet from whose weights a fixed subnet is trained on; from scratch if absent.
        teachers: canonical texts of subnets of the supernet that a fixed subnet was cut from, whose average, as they stand there, gives
            half of what it learns; the labels are all if there are none.
        entanglement: form of weight sharing, `normalised` or `paper`.
        seed: of initial values, order of examples and subnets.

    Raises:
        ConfigInvalid: a setting is out of range, or two contradict each other.
    """

    epochs: int = 60
    batch_size: int | None = None
    learning_rate: float = 3e-3
    tensor_rates: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    warmup: float = 0.1
    warmup_epochs: int | None = None
    drop_path: float = 0.0
    patience: int | None = None
    augment: Sequence[str] = ()
    label_smoothing: float = 0.0
    ema: float = 0.0
    cycles: int = 1
    precision: Precision = "float32"
    policy: Policy = "random"
    subnets: int = 1
    sampling: Sampling = "uniform"
    budget: int | None = None
    fixed: str | None = None
    start: str | None = None
    teachers: Sequence[str] = ()
    entanglement: str = "normalised"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("policy", Policy), ("sampling", Sampling), ("precision", Precision), ("entanglement", Entanglement)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigInvalid(f"{name} {getattr(self, name)!r} is unknown; accepted: {', '.join(get_args(kind))}")
        if (self.policy == "fixed") != (self.fixed is not None):
            raise ConfigInvalid("policy 'fixed' and a fixed subnet config go together")
        if self.start is not None and self.fixed is None:
            raise ConfigInvalid("only a fixed subnet can start from another supernet")
        if self.teachers and self.fixed is None:
            raise ConfigInvalid("only a fixed subnet can be taught by others")
        if (self.sampling == "budget") != (self.budget is not None):
            raise ConfigInvalid("sampling 'budget' and a budget go together")
        self._check_numbers()
        if self.cycles > 1 and (self.ema or self.patience is not None):
            raise ConfigInvalid(f"cycles are {self.cycles}, which have an average of their own; accepted without ema and patience")
        if isinstance(self.augment, str):
            raise ConfigInvalid(f"augment {self.augment!r} is a text; accepted is a list of any of {', '.join(AUGMENTATIONS)}")
        unknown = sorted(set(self.augment) - set(AUGMENTATIONS))
        if unknown:
            raise ConfigInvalid(f"augment {unknown[0]!r} is unknown; accepted: {', '.join(AUGMENTATIONS)}")
        if set(self.tensor_rates) - {*TENSORS, "head"}:
            raise ConfigInvalid(f"tensor_rates {dict(self.tensor_rates)} are not accepted: factors of at least 0 for A, B, C, D, E or head")

    def _check_numbers(self) -> None:
        for name, least in (("epochs", 1), ("subnets", 1), ("cycles", 1), ("seed", 0)):
            check_whole(name, getattr(self, name), least)
        for name, least in (("batch_size", 1), ("budget", 0), ("warmup_epochs", 0), ("patience", 1)):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least)
        if self.warmup_epochs is not None and self.warmup_epochs > self.epochs:
            raise ConfigInvalid(f"warmup_epochs is {self.warmup_epochs}; accepted are at most the {self.epochs} epochs of the training")
        if self.cycles > self.epochs:
            raise ConfigInvalid(f"cycles are {self.cycles}; accepted are at most as many as the {self.epochs} epochs of the training")
        check_positive("learning_rate", self.learning_rate)
        check_positive("weight_decay", self.weight_decay, zero=True)
        if self.clip_norm is not None:
            check_positive("clip_norm", self.clip_norm)
        check_share("warmup", self.warmup, whole=True)
        for name in ("ema", "label_smoothing", "drop_path"):
            check_share(name, getattr(self, name))
        for tensor, rate in self.tensor_rates.items():
            check_positive(f"tensor_rates of {tensor}", rate, zero=True)

    @staticmethod
    def of(given: Mapping[str, Any]) -> "TrainingSettings":
        """From settings by name, such as keyword arguments.

        Raises:
            ConfigInvalid: there is no setting of such a name, or one is out of range.
        """
        names = [known.name for known in fields(TrainingSettings)]
        for name in given:
            if name not in names:
                near = get_close_matches(name, names, 1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ConfigInvalid(f"there is no training setting {name!r}; {hint}accepted: {', '.join(names)}")
        return TrainingSettings(**given)

    def batch_of(self, examples: int) -> int:
        """Examples of a step, of a training split of so many: as many as were asked for, or an eighth of the split, within `BATCHES`."""
        least, most = BATCHES
        return self.batch_size or max(least, min(most, examples // STEPS))

    @property
    def warmup_share(self) -> float:
        """Share of all steps spent warming up, 0–1, however it was given."""
        return self.warmup if self.warmup_epochs is None else self.warmup_epochs / self.epochs

    @property
    def cycle_ends(self) -> tuple[int, ...]:
        """Epochs that are over when each cycle ends."""
        return tuple(round(self.epochs * number / self.cycles) for number in range(1, self.cycles + 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished epoch.

    Attributes:
        loss: mean training loss, in nats.
        learning_rate: of its last step.
        seconds: since the loop began.
        probe: accuracy of probed subnets inside the supernet, 0–1, by name; empty where none were.
        val_loss: mean loss of the probed subnets, in nats; None where none were.
    """

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    seconds: float
    probe: Mapping[str, float] = field(default_factory=dict)
    val_loss: float | None = None
