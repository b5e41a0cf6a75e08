"""The methods of the quality table, and what each of them is on a task within a budget.

A method is one or a few variants, each plain data that says what is trained; `tuning` chooses among them on `val`. Ours are fixed
subnets, told in the canonical text of a config; rivals are the arguments of peft's own configurations. Nothing here trains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glora_core.configs import NONE, TENSORS, VECTOR, LayerConfig, SubnetConfig, encode, lora
from glora_core.effort import EFFORTS
from glora_core.methods import method_config
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import LayerShape, SearchSpace

from .searched import recorded
from .tasks import Task

RANK, RIVALS_RANK = 4, 16
"""LoRA's at the full budget, and the highest of rivals, some of which leave layers out that are then no cost."""
VERA_RANK = 256
"""Largest rank of VeRA, as its authors use for their larger models; its cost is in the frozen projections, not in parameters."""
_RANDOM = 103


@dataclass(frozen=True)
class Variant:
    """One form of a method: what it is called, and all that says what is trained.

    Attributes:
        label: for the table.
        what: plain JSON types; part of a run's identity.
    """

    label: str
    what: Mapping[str, Any]


class Unavailable(Exception):
    """A method does not exist for a task within a budget; the message says why."""


Variants = Callable[[Task, int, int], list[Variant]]
"""(task, budget, seed) to the variants within the budget. Raises Unavailable if there is none."""


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Args:
        title: for people.
        kind: `subnet`, `peft`, `full` or `searched`: how it is trained.
        variants: what it is within a budget.
        rate: peak learning rate at which its tuning begins.
        tuned: whether rate and length are chosen on `val`; else the method decides for itself.
    """

    title: str
    kind: str
    variants: Variants
    rate: float = 3e-3
    tuned: bool = True


def budgets(layers: Sequence[LayerShape]) -> dict[str, int]:
    """The two budgets: LoRA of rank 4 on all adapted layers exactly, and a third of it."""
    full = sum(RANK * (layer.in_features + layer.out_features) for layer in layers)
    return {"full": full, "third": full // 3}


def _known(method: str) -> Variants:
    """A known method, on all layers."""

    def variants(task: Task, budget: int, seed: int) -> list[Variant]:
        space = SearchSpace.of(task.layers)
        config = method_config(space, method)
        if space.parameters(config) > budget:
            raise Unavailable(f"{space.parameters(config):,} parameters are over the budget of {budget:,}")
        return [_subnet("", config)]

    return variants


def _uniform(layers: Mapping[str, Callable[[int], LayerConfig]]) -> Variants:
    """Layer configs by rank, each on all layers at the highest rank that fits; `#` in a label stands for that rank."""

    def variants(task: Task, budget: int, seed: int) -> list[Variant]:
        space, found = SearchSpace.of(task.layers), []
        for label, layer in layers.items():
            spread = ((rank, _spread(space, layer(rank))) for rank in range(RANK, 0, -1))
            fitting = next(((rank, config) for rank, config in spread if space.parameters(config) <= budget), None)
            if fitting is not None:
                found.append(_subnet(label.replace("#", str(fitting[0])), fitting[1]))
        if not found:
            raise Unavailable(f"over the budget of {budget:,} parameters")
        return found

    return variants


GLORA: Mapping[str, Callable[[int], LayerConfig]] = {
    "B(#), E": lambda r: LayerConfig(B=lora(r), E=VECTOR),
    "A, B(#), C, D, E": lambda r: LayerConfig(A=VECTOR, B=lora(r), C=VECTOR, D=VECTOR, E=VECTOR),
    "A(#), B(#), E": lambda r: LayerConfig(A=lora(r), B=lora(r), E=VECTOR),
    "A, E": lambda r: LayerConfig(A=VECTOR, E=VECTOR),
}
"""LoRA with what other methods add to it, low-rank A beside B, and vectors alone."""


def _middle(task: Task, budget: int, seed: int) -> list[Variant]:
    """In each layer the config nearest half of its largest cost, or the largest lesser share that keeps the budget."""
    space = SearchSpace.of(task.layers)

    def at(share: float) -> SubnetConfig:
        nearest = (min(range(len(costs)), key=lambda i: (abs(costs[i] - share * max(costs)), i)) for costs in space.costs)
        return tuple(configs[i] for configs, i in zip(space.layer_configs, nearest, strict=True))

    low, high = 0.0, 0.5
    if space.parameters(at(high)) <= budget:
        low = high
    while high - low > 1e-4:
        share = (low + high) / 2
        low, high = (share, high) if space.parameters(at(share)) <= budget else (low, share)
    return [_subnet("", at(low))]


def _random(task: Task, budget: int, seed: int) -> list[Variant]:
    """A subnet drawn by the seed, uniformly over those that keep the budget."""
    return [_subnet("", FeasibleSampler(SearchSpace.of(task.layers), budget).sample(stream(seed, _RANDOM)))]


def _full(task: Task, budget: int, seed: int) -> list[Variant]:
    return [Variant("", {})]


def _searched(effort: str) -> Variants:
    """Our pipeline at an effort."""

    def variants(task: Task, budget: int, seed: int) -> list[Variant]:
        spent = EFFORTS[effort]
        return [Variant("", {"budget": budget, "effort": recorded(spent.of(task.epochs(spent.epochs)))})]

    return variants


def _peft(
    kind: str, cost: Callable[[LayerShape, int], int], largest: int = RIVALS_RANK, linear_only: bool = False, **options: Any
) -> Variants:
    """A tuner of peft at the highest rank that fits; `cost` counts its parameters in a layer at a rank."""

    def variants(task: Task, budget: int, seed: int) -> list[Variant]:
        targets = [layer for layer in task.layers if layer.name in (task.linear if linear_only else task.plain)]
        if not targets:
            raise Unavailable(f"peft's {kind} adapts linear layers, and this backbone has none but its head")
        ranks = (rank for rank in range(largest, 0, -1) if sum(cost(layer, rank) for layer in targets) <= budget)
        rank = next(ranks, None)
        if rank is None:
            raise Unavailable(f"over the budget of {budget:,} parameters")
        label = ", ".join([*map(str, options.values())] * (kind == "GLORA") + [f"rank {rank}"] * (largest > 1))
        return [Variant(label, {"peft": kind, "rank": rank, "layers": [layer.name for layer in targets], **options})]

    return variants


def _either(*choices: Variants) -> Variants:
    """All variants of several that fit. Raises Unavailable, with the last one's reason, if none does."""

    def variants(task: Task, budget: int, seed: int) -> list[Variant]:
        found, reason = [], ""
        for choice in choices:
            try:
                found += choice(task, budget, seed)
            except Unavailable as error:
                reason = str(error)
        if not found:
            raise Unavailable(reason)
        return found

    return variants


def _glora(cost: Callable[[LayerShape, int], int], largest: int, *settings: str) -> Variants:
    """GLoRA as peft has it, whose settings hold for all layers: of A and B, of C, of D and E."""
    return _peft("GLORA", cost, largest, True, **dict(zip(("config_A_B", "config_C", "config_D_E"), settings, strict=True)))


PEFT_GLORA = _either(
    _glora(lambda s, r: 2 * r * _both(s) + r * s.in_features + r + 2, RIVALS_RANK, "lora", "lora", "constant"),
    _glora(lambda s, r: 4 * s.out_features + s.in_features, 1, "vector", "vector", "vector"),
    _glora(lambda s, r: 2 * s.out_features + 2, 1, "vector", "none", "constant"),
)
"""peft's default, a vector for every tensor, and the most that fits a small budget."""

METHODS: Mapping[str, Method] = {
    "linear-probe": Method("linear probe", "subnet", _known("linear-probe"), 1e-2),
    "bitfit": Method("BitFit", "subnet", _known("bitfit")),
    "ssf": Method("SSF", "subnet", _known("ssf")),
    "lora": Method("LoRA", "subnet", _uniform({"rank #": lambda r: LayerConfig(B=lora(r))})),
    "uniform": Method("best GLoRA config for all layers", "subnet", _uniform(GLORA)),
    "middle": Method("middle of the space", "subnet", _middle),
    "random": Method("random feasible", "subnet", _random),
    "peft-lora": Method("peft LoRA", "peft", _peft("LORA", lambda s, r: r * _both(s))),
    "peft-eva": Method("peft LoRA along the inputs (EVA)", "peft", _peft("EVA", lambda s, r: r * _both(s), linear_only=True)),
    "peft-dora": Method("peft DoRA", "peft", _peft("LORA", lambda s, r: r * _both(s) + s.out_features, use_dora=True)),
    "peft-ia3": Method("peft IA3", "peft", _peft("IA3", lambda s, r: s.in_features if _narrows(s) else s.out_features, 1)),
    "peft-vera": Method("peft VeRA", "peft", _peft("VERA", lambda s, r: r + s.out_features, VERA_RANK, True), 1e-2),
    "peft-glora": Method("peft GLoRA", "peft", PEFT_GLORA),
    "full": Method("full fine-tuning", "full", _full, 1e-4),
    **{f"searched-{effort}": Method(f"**searched GLoRA, {effort}**", "searched", _searched(effort), tuned=False) for effort in EFFORTS},
}


def _both(layer: LayerShape) -> int:
    return layer.in_features + layer.out_features


def _narrows(layer: LayerShape) -> bool:
    """Whether a layer has more inputs than outputs, as the second of a feed-forward block; IA3 scales its inputs."""
    return layer.in_features > layer.out_features


def feedforward(layers: Sequence[LayerShape]) -> list[str]:
    """Names of the layers whose inputs IA3 scales."""
    return [layer.name for layer in layers if _narrows(layer)]


def _subnet(label: str, config: SubnetConfig) -> Variant:
    return Variant(label, {"subnet": encode(config)})


def _spread(space: SearchSpace, wanted: LayerConfig) -> SubnetConfig:
    """A layer config on all layers; a tensor that a layer cannot carry is `none` there."""
    return tuple(LayerConfig(*(wanted[t] if space.carries(shape, t) else NONE for t in TENSORS)) for shape in space.layers)
