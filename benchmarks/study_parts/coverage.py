"""How much of a space a search has looked at: its choices, by layer and tensor. Plain numbers, no torch."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from glora_core.configs import TENSORS, Choice, SubnetConfig
from glora_core.space import SearchSpace


def tried(space: SearchSpace, configs: Iterable[SubnetConfig]) -> NDArray[np.float64]:
    """Share of the choices of each layer's tensors that one of some subnets has at least, (layers, tensors)."""
    return _by_tensor(space, configs, len)


def alive(space: SearchSpace, configs: Iterable[SubnetConfig]) -> NDArray[np.float64]:
    """Effective number of choices among some subnets, as a share of all that a layer's tensor has, (layers, tensors).

    That is the exponential of the entropy of how often each choice occurs (Hill, Ecology 54, 1973): 1 where all occur alike, and
    1/choices where one is left.
    """
    return _by_tensor(space, configs, _effective)


def layer_configs_tried(space: SearchSpace, configs: Sequence[SubnetConfig]) -> float:
    """Mean over layers of the share of a layer's configs that one of some subnets has at least."""
    shares = [len({config[i] for config in configs}) / len(allowed) for i, allowed in enumerate(space.layer_configs)]
    return sum(shares) / len(shares)


def _by_tensor(space: SearchSpace, configs: Iterable[SubnetConfig], measure: Callable[[Counter[Choice]], float]) -> NDArray[np.float64]:
    rows, found = list(configs), np.zeros((len(space.layers), len(TENSORS)))
    for layer, choices in enumerate(space.choices):
        for position, tensor in enumerate(TENSORS):
            found[layer, position] = measure(Counter(config[layer][tensor] for config in rows)) / len(choices[tensor])
    return found


def _effective(counts: Counter[Choice]) -> float:
    total = sum(counts.values())
    return math.exp(-sum(count / total * math.log(count / total) for count in counts.values()))
