"""Where a training of the normalised entanglement starts, measured: what one optimiser step does to a layer's output under each choice.

An adaptive optimiser moves every number by about the learning rate, in a direction of its own. So each choice's numbers are
moved by ±1, signs at random, from where a training starts, and the change of the layer's output is measured (root mean square over
examples, positions and channels, on real inputs of the layer). A low-rank B of rank 4 keeps the scale 1, so that the learning rate is
LoRA's own; a step of more columns moves the output further, so that one of higher rank acts at less and one of lower rank at more
(docs/decisions/0021-one-rate-for-all-ranks.md). All other choices are given `SHARE` of that effect: they have few numbers, which all
examples pull the same way, and which come and go while B has to be learned beside them (docs/decisions/0006-measured-scales.md has what
was tried).

Scales are powers of two. That is as exact as the argument is, it makes multiplying by them exact, so that merges lose nothing
(`glora_core.layers.bounds`), and the noise of another machine's sums does not change them. Imports torch.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from glora_core.backbones import Inputs
from glora_core.backbones.adaptable import evaluating
from glora_core.configs import TENSORS, lora
from glora_core.directions import principal_rows
from glora_core.layers import GLoRALayer
from glora_core.layers.storage import KINDS, NormalisedStorage, xavier
from glora_core.supernet import Supernet

RANK = 4
"""Of the low-rank B that all is compared with, and whose scale is 1."""
SHARE = 1 / 8
"""Effect of a step of every choice but a low-rank B, as a share of that one's."""
LARGEST = 8.0
"""No number acts at more than this: a choice that hardly moves the output, such as D over biases near zero, is left a weak one."""


Effects = dict[tuple[str, str], float]
"""Root mean square of what a layer's output changes by when all numbers of a choice move by ±1, by tensor and kind."""


def calibrate(supernet: Supernet, inputs: Inputs, seed: int = 0, share: float = SHARE) -> None:
    """Measure and set the scales of every adapted layer, and point its low-rank B along its inputs (`glora_core.directions`).

    Nothing is done to the `paper` form, whose choices share numbers.

    Args:
        supernet: untrained, so that what it computes does not change; its config is set to the smallest subnet. It runs in eval mode,
            and the statistics of its batch norms stay as they are.
        inputs: some training examples, of all kinds that there are.
        seed: of the signs.
        share: of a low-rank B's effect, for every other choice.
    """

    def start(layer: GLoRALayer, effects: Effects, x: Tensor) -> None:
        assert isinstance(layer.support, NormalisedStorage)
        layer.support.scales = _scales(effects, share, _rank(layer))
        _point(layer, x)

    _visit(supernet, inputs, seed, start)


def step_effects(supernet: Supernet, inputs: Inputs, seed: int = 0) -> dict[str, Effects]:
    """What a step of every choice does to its layer's output where nothing is scaled, by layer; arguments as of `calibrate`.

    Layers of the `paper` form, and those that the forward pass does not call, are left out.
    """
    found: dict[GLoRALayer, Effects] = {}
    _visit(supernet, inputs, seed, lambda layer, effects, x: found.update({layer: effects}))
    return {shape.name: found[layer] for shape, layer in supernet.layers() if layer in found}


@torch.no_grad()
def _visit(supernet: Supernet, inputs: Inputs, seed: int, visit: Callable[[GLoRALayer, Effects, Tensor], None]) -> None:
    """Call with each layer, the effects of its choices, and its first input where the supernet is the backbone.

    Within the forward pass, so that no more than one layer's input is kept at a time.
    """
    supernet.set_config(supernet.space.extreme(largest=False))
    layers = [layer for _, layer in supernet.layers() if isinstance(layer.support, NormalisedStorage)]
    left = dict(zip(layers, range(len(layers)), strict=True))

    def measure(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, GLoRALayer)
        if layer in left:
            generator, x = torch.Generator().manual_seed(seed + left.pop(layer)), unpadded(arguments[0], inputs)
            visit(layer, _effects(layer, x, generator), x)

    hooks = [layer.register_forward_pre_hook(measure) for layer in layers]
    try:
        with evaluating(supernet):
            supernet(inputs)
    finally:
        for hook in hooks:
            hook.remove()


def unpadded(x: Tensor, inputs: Inputs) -> Tensor:
    """A layer's input without the positions that only fill up texts: (tokens, in) where it has one for each token of them."""
    mask = None if isinstance(inputs, Tensor) else inputs.get("attention_mask")
    return x if mask is None or x.dim() != 3 or x.shape[:2] != mask.shape else x[mask.bool()]


def _point(layer: GLoRALayer, x: Tensor) -> None:
    """Start the low-rank B of a layer along the principal components of its inputs."""
    rank = layer.support.rank("B")
    if not rank or not layer.factored:
        return
    rows = principal_rows(layer, x, layer.support.up("B", rank))
    if rows is not None:
        layer.support.write("B", lora(rank), layer.support.down("B", rank), rows)


def _scales(effects: Effects, share: float, rank: int) -> Tensor:
    """Scales, as `NormalisedStorage.scales` has them, that give every choice its share of the effect of B at `RANK`; 1 where it has none.

    Columns of random signs add up like random steps, so that B of `rank` has that effect at √(`RANK` / `rank`).
    """
    found = torch.ones(len(TENSORS), len(KINDS), dtype=torch.float64)
    found[TENSORS.index("B"), KINDS.index("lora")] = 2.0 ** round(math.log2(RANK / rank) / 2)  # 1 for 2 and 8: halves are rounded to even
    aim = share * effects["B", "lora"] * math.sqrt(RANK / rank)
    for (tensor, kind), effect in effects.items():
        if (tensor, kind) != ("B", "lora") and 0 < aim < math.inf:
            scale = LARGEST if effect * LARGEST <= aim else 2.0 ** round(math.log2(aim / effect))
            found[TENSORS.index(tensor), KINDS.index(kind)] = scale
    return found


def _effects(layer: GLoRALayer, x: Tensor, generator: torch.Generator) -> Effects:
    """The effects of one layer on inputs that it was given."""
    weight = layer.matrix(layer.weight)
    rows, columns = weight.shape
    rank = _rank(layer)

    def signs(*shape: int) -> Tensor:
        return (torch.randint(0, 2, shape, generator=generator) * 2.0 - 1).to(weight)

    def low_rank(height: int, width: int) -> Tensor:
        return signs(height, rank) @ xavier(rank, width, generator).to(weight)

    def through(matrix: Tensor) -> float:
        return _rms(layer.apply_matrix(x, matrix.expand(rows, columns), None))

    product, row = low_rank(rows, columns), signs(rows, 1)
    bias = 0.0 if layer.bias is None else _rms(layer.bias)
    return {
        ("A", "lora"): through(weight * product),
        ("A", "vector"): through(weight * row),
        ("A", "scalar"): through(weight),
        ("B", "lora"): through(product),
        ("B", "vector"): through(row),
        ("B", "scalar"): through(torch.ones_like(row)),
        ("C", "lora"): _rms(weight @ low_rank(columns, 1)),
        ("C", "vector"): _rms(weight @ signs(columns, 1)),
        ("D", "vector"): bias,
        ("D", "scalar"): bias,
        ("E", "vector"): 1.0,
        ("E", "scalar"): 1.0,
    }


def _rank(layer: GLoRALayer) -> int:
    """The highest that the layer may have."""
    return max(layer.support.rank("B"), layer.support.rank("A")) or RANK


def _rms(values: Tensor) -> float:
    return float(values.double().pow(2).mean().sqrt())
