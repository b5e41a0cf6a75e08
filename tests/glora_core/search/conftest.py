"""A search problem small enough to be solved by listing every subnet, against which strategies are tested."""

import itertools
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest

from glora_core.configs import SubnetConfig
from glora_core.search import Evaluated, Proposal, SearchSettings, propose, rank
from glora_core.space import LayerShape, SearchSpace


@dataclass(frozen=True)
class Problem:
    """Four layers of twelve configs; each config has a worth of its own and one with each config of the layer before."""

    space: SearchSpace
    budget: int
    alone: np.ndarray
    pairs: np.ndarray
    alone_second: np.ndarray

    def evaluate(self, config: SubnetConfig, generation: int = 0) -> Evaluated:
        """The table's fitness of a subnet."""
        index = [configs.index(layer) for configs, layer in zip(self.space.layer_configs, config, strict=True)]
        worth = self.worth(self.alone, np.array([index]))[0]
        second = self.worth(self.alone_second, np.array([index]))[0]
        accuracy = float(np.round(1 / (1 + np.exp(-worth)), 2))
        return Evaluated(
            config, accuracy, float(np.exp(-worth)), self.space.parameters(config), generation, float(1 / (1 + np.exp(-second)))
        )

    def worth(self, alone: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Of subnets (n, layers) given by the indices of their layers' configs."""
        total = sum(alone[layer, index[:, layer]] for layer in range(index.shape[1]))
        return total + sum(self.pairs[layer, index[:, layer], index[:, layer + 1]] for layer in range(index.shape[1] - 1))

    @cached_property
    def feasible(self) -> list[Evaluated]:
        """Every subnet within the budget, best first."""
        configs = itertools.product(*self.space.layer_configs)
        return rank(self.evaluate(config) for config in configs if self.space.parameters(config) <= self.budget)

    @cached_property
    def _orders(self) -> list[tuple[float, float, int, str]]:
        return [e.order for e in self.feasible]

    def place(self, best: Evaluated) -> int:
        """Place of a subnet among all within the budget; 0 for the optimum."""
        return bisect_left(self._orders, best.order)

    def search(self, settings: SearchSettings, seed: int, history: list[Evaluated] | None = None, start: int = 0) -> list[Evaluated]:
        """A whole search, or the rest of one; returns the history."""
        history = list(history or [])
        for generation in range(start, settings.generations):
            population: list[Proposal] = propose(self.space, self.budget, settings, history, generation, seed)
            history += [self.evaluate(proposal.config, generation) for proposal in population]
        return history


@pytest.fixture(scope="session")
def problem() -> Problem:
    """The same table in every test: 20,736 subnets, a third of which keep the budget."""
    kinds = {"A": ("vector", "none"), "B": ("lora", "vector", "none"), "C": ("none",), "D": ("none",), "E": ("vector", "none")}
    space = SearchSpace.of([LayerShape(f"l{i}", 6, 4 + i) for i in range(4)], (2,), kinds)
    rng = np.random.default_rng(7)
    alone, second = rng.normal(0, 0.6, size=(2, 4, 12))
    return Problem(space, space.maximum * 2 // 5, alone, rng.normal(0, 0.4, size=(3, 12, 12)), second)
