"""Which random subnets a training step trains: a pure function of settings and step, so that a resumed run draws the same."""

from glora_core.configs import TENSORS, LayerConfig, SubnetConfig
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import SearchSpace
from glora_core.training.settings import TrainingSettings

_SUBNET, _ROUND = 1, 2
PROGRESSIVE_UNTIL = 0.5
"""Share of the steps after which progressive sampling is uniform."""


class SubnetSampler:
    """Draws the random subnets of each step.

    Args:
        space: the supernet's space.
        settings: `sampling`, `subnets`, `budget` and `seed` count.
        steps: of the whole training.
    """

    def __init__(self, space: SearchSpace, settings: TrainingSettings, steps: int) -> None:
        self._space, self._settings, self._steps = space, settings, steps
        self._feasible = FeasibleSampler(space, settings.budget) if settings.budget is not None else None
        self._largest = space.extreme(largest=True)

    def draw(self, step: int) -> list[SubnetConfig]:
        """The random subnets of a step."""
        first = step * self._settings.subnets
        return [self._one(first + i, step) for i in range(self._settings.subnets)]

    def _one(self, number: int, step: int) -> SubnetConfig:
        rng = stream(self._settings.seed, _SUBNET, number)
        if self._feasible is not None:
            return self._feasible.sample(rng)
        if self._settings.sampling == "fair":
            return tuple(self._turn(layer, number) for layer in range(len(self._largest)))
        configs = self._space.layer_configs
        indices = rng.integers([len(allowed) for allowed in configs])
        drawn = tuple(allowed[int(i)] for allowed, i in zip(configs, indices, strict=True))
        if self._settings.sampling == "uniform":
            return drawn
        kept = rng.random(len(drawn)) < 1 - step / max(1, PROGRESSIVE_UNTIL * self._steps)
        return tuple(largest if keep else own for largest, own, keep in zip(self._largest, drawn, kept, strict=True))

    def _turn(self, layer: int, number: int) -> LayerConfig:
        """The config of a layer whose turn it is: in a run of as many draws as a tensor has choices, each comes once."""
        chosen = []
        for position, choices in enumerate(self._space.choices[layer][tensor] for tensor in TENSORS):
            order = stream(self._settings.seed, _ROUND, layer, position, number // len(choices)).permutation(len(choices))
            chosen.append(choices[int(order[number % len(choices)])])
        return LayerConfig(*chosen)
