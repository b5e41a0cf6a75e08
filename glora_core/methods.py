"""Known methods as points of the space: LoRA, BitFit, SSF and the linear probe need no code of their own (DESIGN §3).

Used as baselines, as finalists and as seeds of a search. Plain Python, no torch.
"""

from collections.abc import Iterable

from glora_core.configs import NONE, TENSORS, VECTOR, LayerConfig, SubnetConfig, lora
from glora_core.errors import ConfigInvalid
from glora_core.space import SearchSpace, layer_parameters

METHODS = ("linear-probe", "bitfit", "ssf", "lora")


def method_layer(method: str, rank: int = 4) -> LayerConfig:
    """The layer config that makes up a known method on every adapted layer.

    Raises:
        ConfigInvalid: the method is unknown.
    """
    layers = {
        "linear-probe": LayerConfig(),
        "bitfit": LayerConfig(E=VECTOR),
        "ssf": LayerConfig(A=VECTOR, D=VECTOR, E=VECTOR),
        "lora": LayerConfig(B=lora(rank)),
    }
    if method not in layers:
        raise ConfigInvalid(f"method {method!r} is unknown; accepted: {', '.join(METHODS)}")
    return layers[method]


def method_config(space: SearchSpace, method: str, rank: int | None = None) -> SubnetConfig:
    """A known method on all layers of a space; a tensor that a layer cannot carry is `none` there.

    LoRA takes the space's largest rank unless one is given.
    """
    wanted = method_layer(method, rank or max(space.ranks_used, default=1))
    return tuple(LayerConfig(*(wanted[tensor] if space.carries(shape, tensor) else NONE for tensor in TENSORS)) for shape in space.layers)


def methods_within(space: SearchSpace, budget: int) -> dict[str, SubnetConfig]:
    """The known methods over the space's layers that a budget admits, LoRA at the highest rank that fits, up to the space's own.

    Where not even rank 1 fits on all layers, LoRA has it on as many as fit, those of the fewest parameters first: in a transformer the
    attention. A method need not be in the space: its rank may not be one of the space's, or its choices not allowed there.
    """
    return _fitting(space, budget, range(max(space.ranks_used, default=0), 0, -1))


def seeds_within(space: SearchSpace, budget: int) -> list[SubnetConfig]:
    """The known methods that are in the space and admitted by a budget, LoRA at the highest of the space's ranks that fits."""
    return list(methods_inside(space, budget).values())


def methods_inside(space: SearchSpace, budget: int) -> dict[str, SubnetConfig]:
    """The same by name."""
    found = _fitting(space, budget, space.ranks_used[::-1])
    return {name: config for name, config in found.items() if space.contains(config)}


def _fitting(space: SearchSpace, budget: int, lora_ranks: Iterable[int]) -> dict[str, SubnetConfig]:
    plain = {method: method_config(space, method) for method in METHODS if method != "lora"}
    found = {method: config for method, config in plain.items() if space.parameters(config) <= budget}
    config = _lora(space, budget, tuple(lora_ranks))
    return found if config is None else found | {"lora": config}


def _lora(space: SearchSpace, budget: int, ranks: tuple[int, ...]) -> SubnetConfig | None:
    """At the first of some ranks that fits on all layers, else of rank 1 on some of them; None if on none, or there is no rank."""
    for rank in ranks:
        if space.parameters(config := method_config(space, "lora", rank)) <= budget:
            return config
    return _on_some(space, budget, method_config(space, "lora", 1)) if ranks else None


def _on_some(space: SearchSpace, budget: int, config: SubnetConfig) -> SubnetConfig | None:
    """As much of a config as a budget admits, layers of few parameters first and the last of equals first; None if it is nothing."""
    costs = [layer_parameters(layer.code, shape.in_features, shape.out_features) for layer, shape in zip(config, space.layers, strict=True)]
    chosen = [LayerConfig()] * len(config)
    for number in sorted(range(len(config)), key=lambda number: (costs[number], -number)):
        if 0 < costs[number] <= budget:
            chosen[number], budget = config[number], budget - costs[number]
    return tuple(chosen) if any(layer != LayerConfig() for layer in chosen) else None
