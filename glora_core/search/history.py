"""What a strategy sees and says: evaluated subnets in, proposals out. Plain Python."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from glora_core.configs import SubnetConfig, config_hash


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A subnet with its measured fitness.

    Attributes:
        config: the subnet config.
        accuracy: share of right answers on `val`, 0–1.
        loss: mean cross-entropy on `val`, in nats.
        parameters: trainable parameters, head not counted.
        generation: in which it was first proposed.
        second: accuracy on a second split, such as one under domain shift, 0–1; None where there is none.
        measure: what is searched for on `val`, more being better, where that is another metric than accuracy; else None.
        macro_accuracy: mean over classes of the share of right answers on `val`, 0–1; None where it was not measured.
        digest: hash of the config, made once: a search of thousands asks for it in every generation.
    """

    config: SubnetConfig
    accuracy: float
    loss: float
    parameters: int
    generation: int = 0
    second: float | None = None
    measure: float | None = None
    macro_accuracy: float | None = None
    digest: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", config_hash(self.config))

    @property
    def fitness(self) -> float:
        """What subnets are ranked by, more being better: `measure`, or else the accuracy."""
        return self.accuracy if self.measure is None else self.measure

    @property
    def order(self) -> tuple[float, float, int, str]:
        """Sort key, best first: fitness, then the lower loss, then fewer parameters, then the hash so that no tie is left."""
        return (-self.fitness, self.loss, self.parameters, self.digest)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate before its evaluation.

    Attributes:
        config: the subnet config, within the budget.
        operator: what made it: `seed`, `random`, `crossover` or `mutation`.
        parents: hashes of the configs it was made from.
        digest: hash of the config.
    """

    config: SubnetConfig
    operator: str
    parents: tuple[str, ...] = ()
    digest: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", config_hash(self.config))


def rank(history: Iterable[Evaluated]) -> list[Evaluated]:
    """The distinct evaluated subnets, best first."""
    return sorted({e.digest: e for e in history}.values(), key=lambda e: e.order)
