"""The searches of the study, and what is recorded of them: how good, how many evaluations, how much of the space they saw.

A record is plain JSON types, so that table and plot can be made again without a single evaluation.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_quality import Bench, replay
from benchmarks.study_parts.coverage import alive, layer_configs_tried, tried
from glora_core.sampling import FeasibleSampler
from glora_core.search import Evaluated, SearchSettings, rank
from glora_core.space import SearchSpace

SHARES = (1 / 3, 2 / 3, 1.0)
"""Of its generations, after which a search is looked at. A search of fewer generations is the beginning of one of more."""


@dataclass(frozen=True)
class Grid:
    """What is varied.

    Args:
        populations, rates: candidates of a generation, and chances of a layer to be redrawn in a mutation.
        evaluations: proposed in a search of any population, which fixes its generations.
    """

    strategy: str
    populations: Sequence[int]
    rates: Sequence[float]
    evaluations: int

    def settings(self) -> list[SearchSettings]:
        """Of every search, by population and then by rate."""
        return [
            SearchSettings(
                strategy=self.strategy,
                population=population,
                generations=max(1, self.evaluations // population),
                mutation_probability=rate,
                parents=min(10, population),
                seed_known_methods=False,
            )
            for population in self.populations
            for rate in self.rates
        ]


@dataclass(frozen=True)
class Seen:
    """A search after some of its generations.

    Attributes:
        generations, evaluations: so far; no subnet is counted twice.
        accuracy, loss: of the best so far, 0–1 and nats.
        tried, configs: share of choices, by layer and tensor in the mean, and of layer configs that any candidate had.
        alive: effective share of choices in the last generation, by layer and tensor in the mean.
    """

    generations: int
    evaluations: int
    accuracy: float
    loss: float
    tried: float
    configs: float
    alive: float


def seen(space: SearchSpace, history: Sequence[Evaluated], generations: int) -> Seen:
    """What a search has come to after its first generations."""
    past = [evaluated for evaluated in history if evaluated.generation < generations]
    best, configs = rank(past)[0], [evaluated.config for evaluated in past]
    last = [evaluated.config for evaluated in past if evaluated.generation == generations - 1]
    shares = (float(tried(space, configs).mean()), layer_configs_tried(space, configs), float(alive(space, last).mean()))
    return Seen(generations, len(set(configs)), best.accuracy, best.loss, *shares)


def study(bench: Bench, grid: Grid, budget: int, seeds: int, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """Search with every setting and seed; a row for each setting, with its searches and the mean choices alive at their ends."""
    sampler, rows = FeasibleSampler(bench.space, budget), []
    for settings in grid.settings():
        histories = [replay(bench, budget, settings, seed, sampler) for seed in range(seeds)]
        looks = sorted({max(1, round(share * settings.generations)) for share in SHARES})
        searches = [[asdict(seen(bench.space, history, look)) for look in looks] for history in histories]
        rows.append(
            {
                "population": settings.population,
                "rate": settings.mutation_probability,
                "searches": searches,
                "best": [_best_by_generation(history, settings.generations) for history in histories],
                "alive": _mean_alive(bench.space, histories, settings.generations).round(4).tolist(),
            }
        )
        found = statistics.mean(search[-1]["accuracy"] for search in searches)
        note(f"population {settings.population}, rate {settings.mutation_probability:g}: {seeds} searches, best {100 * found:.2f} %")
    return rows


def _best_by_generation(history: Sequence[Evaluated], generations: int) -> list[float]:
    """Accuracy of the best subnet after each generation."""
    return [rank(e for e in history if e.generation <= number)[0].accuracy for number in range(generations)]


def _mean_alive(space: SearchSpace, histories: Sequence[Sequence[Evaluated]], generations: int) -> NDArray[np.float64]:
    """Choices alive in the last generation, (layers, tensors), in the mean over searches."""
    last = [[e.config for e in history if e.generation == generations - 1] for history in histories]
    mean: NDArray[np.float64] = np.mean([alive(space, configs) for configs in last], axis=0)
    return mean
