"""The knobs of a search, in one place for all strategies, checked when they are set. Plain Python."""

from dataclasses import asdict, dataclass
from typing import Any

from glora_core.checks import check_share, check_whole
from glora_core.errors import ConfigInvalid
from glora_core.metrics import ACCURACY, check_metric
from glora_core.precision import Precision, check_precision

STRATEGY_NAMES = ("evolution", "random", "nsga2", "regularized-evolution", "surrogate")
_AT_LEAST_ONE = ("population", "generations", "parents", "tournament", "alive", "pool")


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How a search goes; a knob that its strategy does not use has no effect.

    Args:
        strategy: one of `STRATEGY_NAMES`; the default is as good as `evolution` after half the evaluations (docs/benchmarks.md).
        population: candidates per generation; every strategy.
        generations: how many generations; every strategy.
        parents: how many of the best subnets so far may have children; `evolution`, and the pool of `surrogate`.
        crossover, mutation: children per generation by each operator, half the population where None; the rest of a
            population is random; `evolution`, `nsga2`.
        mutation_probability: chance of each layer's config to be redrawn in a mutation, which redraws one at least; every
            strategy but `random`.
        seed_known_methods: put the known methods that fit the budget into the first generation; every strategy.
        tournament: how many are drawn, the best of which becomes a parent; `regularized-evolution`.
        alive: how many of the youngest subnets may be drawn; `regularized-evolution`.
        pool: candidates that are predicted to choose a population from, if that is larger; `surrogate`.
        metric: what the fitness is, one of `glora_core.metrics.METRIC_NAMES`; every strategy.
        precision: of an evaluation's forward passes, `float32` or `bfloat16` (docs/benchmarks.md has what that gains and changes).

    Raises:
        ConfigInvalid: a value is not accepted; the message names the field and what is.
    """

    strategy: str = "surrogate"
    population: int = 50
    generations: int = 20
    parents: int = 10
    crossover: int | None = None
    mutation: int | None = None
    mutation_probability: float = 0.2
    seed_known_methods: bool = True
    tournament: int = 25
    alive: int = 100
    pool: int = 400
    metric: str = ACCURACY
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGY_NAMES:
            raise ConfigInvalid(f"strategy {self.strategy!r} is unknown; accepted: {', '.join(STRATEGY_NAMES)}")
        check_metric(self.metric)
        check_precision(self.precision)
        for name in _AT_LEAST_ONE:
            check_whole(name, getattr(self, name), 1)
        for name in ("crossover", "mutation"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 0)
        children = self.children
        if min(children) < 0 or sum(children) > self.population:
            raise ConfigInvalid(
                f"crossover {children[0]} and mutation {children[1]} must be at least 0 and fit the population of {self.population}"
            )
        check_share("mutation_probability", self.mutation_probability, whole=True)

    @property
    def children(self) -> tuple[int, int]:
        """Children by crossover and by mutation, with None filled in from what is left of the population."""
        half = self.population // 2
        crossover = self.crossover if self.crossover is not None else min(half, self.population - (self.mutation or 0))
        mutation = self.mutation if self.mutation is not None else min(half, self.population - crossover)
        return crossover, mutation

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)
