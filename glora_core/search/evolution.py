"""The paper's evolutionary search (arXiv 2306.07967, §3.4) under a parameter budget that every candidate satisfies.

A generation is made of children by crossover and by mutation of the best subnets so far, and random subnets for the
rest. Children are feasible by construction: a gene is only taken if the budget still holds, so nothing is rejected.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from glora_core.configs import config_hash
from glora_core.errors import ConfigInvalid
from glora_core.methods import seeds_within
from glora_core.sampling import FeasibleSampler, stream
from glora_core.search.history import Evaluated, Proposal, rank
from glora_core.space import SearchSpace

_EVOLUTION = 2
_NOVELTY_TRIES = 8


@dataclass(frozen=True, slots=True)
class EvolutionSettings:
    """The knobs of the search; the defaults are the paper's.

    Args:
        population: candidates per generation.
        generations: how many generations.
        parents: how many of the best subnets so far may have children.
        crossover, mutation: children per generation by each operator, half the population where None; the rest of a
            population is random.
        mutation_probability: chance of each layer's config to be redrawn in a mutation.
        seed_known_methods: put the known methods that fit the budget into the first generation.
    """

    population: int = 50
    generations: int = 20
    parents: int = 10
    crossover: int | None = None
    mutation: int | None = None
    mutation_probability: float = 0.2
    seed_known_methods: bool = True

    def __post_init__(self) -> None:
        for name in ("population", "generations", "parents"):
            if getattr(self, name) < 1:
                raise ConfigInvalid(f"{name} is {getattr(self, name)}; accepted are integers of at least 1")
        children = self.children
        if min(children) < 0 or sum(children) > self.population:
            raise ConfigInvalid(
                f"crossover {children[0]} and mutation {children[1]} must be at least 0 and fit the population of {self.population}"
            )
        if not 0 <= self.mutation_probability <= 1:
            raise ConfigInvalid(f"mutation_probability {self.mutation_probability} must lie between 0 and 1")

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


def propose(
    space: SearchSpace,
    budget: int,
    settings: EvolutionSettings,
    history: Sequence[Evaluated],
    generation: int,
    seed: int,
    sampler: FeasibleSampler | None = None,
) -> list[Proposal]:
    """The population of a generation: a pure function of its arguments.

    Args:
        space: the search space.
        budget: upper bound on a subnet's trainable parameters.
        settings: see `EvolutionSettings`.
        history: every evaluation of the generations before this one, in any order.
        generation: from 0.
        seed: of the search.
        sampler: `FeasibleSampler(space, budget)`, where the caller has one already.

    Returns:
        `settings.population` proposals. New subnets are preferred to seen ones, with a bounded number of tries: in a
        space (almost) exhausted, candidates repeat.

    Raises:
        BudgetInfeasible: no subnet has so few parameters.
    """
    rng = stream(seed, _EVOLUTION, generation)
    sampler = sampler or FeasibleSampler(space, budget)
    seen = {config_hash(e.config) for e in history}
    parents = rank(e for e in history if e.parameters <= budget)[: settings.parents]
    chosen: list[Proposal] = []

    def take(make: Callable[[], Proposal], count: int) -> None:
        for _ in range(count):
            proposal = _novel(make, seen)
            seen.add(config_hash(proposal.config))
            chosen.append(proposal)

    if parents:
        crossover, mutation = settings.children
        take(lambda: _crossover(space, budget, parents, rng), crossover)
        take(lambda: _mutation(space, budget, parents, settings.mutation_probability, rng), mutation)
    elif settings.seed_known_methods:
        known = seeds_within(space, budget)
        take(iter(Proposal(config, "seed") for config in known).__next__, min(len(known), settings.population))
    take(lambda: Proposal(sampler.sample(rng), "random"), settings.population - len(chosen))
    return chosen


def _novel(make: Callable[[], Proposal], seen: set[str]) -> Proposal:
    """The first of a few proposals that is new; the last one if none is."""
    proposal = make()
    for _ in range(_NOVELTY_TRIES - 1):
        if config_hash(proposal.config) not in seen:
            break
        proposal = make()
    return proposal


def _crossover(space: SearchSpace, budget: int, parents: Sequence[Evaluated], rng: np.random.Generator) -> Proposal:
    """A child that has each layer from either parent: it starts as the first and takes over, in random order, what fits."""
    first, second = (parents[int(i)] for i in rng.integers(len(parents), size=2))
    child, total = list(first.config), first.parameters
    for layer in rng.permutation(len(child)):
        shape = space.layers[layer]
        change = second.config[layer].parameters(shape.in_features, shape.out_features) - child[layer].parameters(
            shape.in_features, shape.out_features
        )
        if rng.random() < 0.5 and total + change <= budget:
            child[layer], total = second.config[layer], total + change
    return Proposal(tuple(child), "crossover", (config_hash(first.config), config_hash(second.config)))


def _mutation(space: SearchSpace, budget: int, parents: Sequence[Evaluated], probability: float, rng: np.random.Generator) -> Proposal:
    """A child in which each layer is redrawn with the given probability, uniformly among the configs that still fit."""
    parent = parents[int(rng.integers(len(parents)))]
    child, total = list(parent.config), parent.parameters
    chosen = np.flatnonzero(rng.random(len(child)) < probability)
    for layer in rng.permutation(chosen):
        shape = space.layers[layer]
        rest = total - child[layer].parameters(shape.in_features, shape.out_features)
        fitting = np.flatnonzero(np.asarray(space.costs[layer]) <= budget - rest)
        index = int(rng.choice(fitting))
        child[layer], total = space.layer_configs[index], rest + space.costs[layer][index]
    return Proposal(tuple(child), "mutation", (config_hash(parent.config),))
