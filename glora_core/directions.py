"""Where a low-rank B looks first: along the directions in which a layer's inputs differ most, instead of random ones.

The right factor of a low-rank B says to which combinations of its inputs a layer may react. Random ones differ little from example
to example; the principal components of the inputs, on the user's own data, differ most (as in EVA, arXiv 2410.07170). They come in
order, so that the slice of a lower rank, the first rows, has the best of them
(docs/decisions/0022-low-rank-starts-along-the-inputs.md). Imports torch.
"""

import torch
from torch import Tensor

from glora_core.layers import GLoRALayer

ITERATIONS = 8
"""Of subspace iteration; each multiplies what is left of a wrong direction by a ratio of variances."""
SPARE = 4
"""Directions that are followed beyond those wanted, so that the last wanted one is found as fast as the others."""


@torch.no_grad()
def principal_rows(layer: GLoRALayer, x: Tensor, start: Tensor) -> Tensor | None:
    """The principal components of a layer's inputs, greatest variance first, at the size of what they replace.

    Found by subspace iteration through the layer's own product, whatever its kind: for y = V p over the patches p that a row of
    the weight is multiplied with, the gradient of ½ ‖y − mean y‖² by V is V times the patches' covariance.

    Args:
        layer: whose groups, if it is a convolution, are one.
        x: inputs that it was given.
        start: rows to replace (rank, in); what their product with the inputs is in size, is that of the rows given back.

    Returns:
        (rank, in), orthogonal rows, each with its entry of largest magnitude positive; None where the inputs do not vary, or the rows are
        as many as a patch has numbers.
    """
    rank, columns = start.shape
    if rank >= columns:
        return None
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    x, start = x.to(dtype), start.to(x.device, dtype)
    generator = torch.Generator().manual_seed(0)
    spare = torch.randn(min(SPARE, columns - rank), columns, generator=generator).to(start)
    rows = _orthogonal(torch.cat([start, spare]))
    for _ in range(ITERATIONS):
        with torch.enable_grad():
            rows.requires_grad_(True)
            centred = _centred(layer, x, rows)
            (turned,) = torch.autograd.grad(0.5 * centred.square().sum(), rows)
        if not bool(turned.isfinite().all()) or not bool(turned.any()):
            return None
        rows = _orthogonal(turned)
    values = _centred(layer, x, rows)
    _, rotation = torch.linalg.eigh(values.T @ values)
    rows = (rotation.flip(1).T @ rows)[:rank]
    signs = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    size = _through(layer, x, start).square().mean() / _through(layer, x, rows).square().mean()
    found: Tensor = rows * signs * size.sqrt()
    return found


def _orthogonal(rows: Tensor) -> Tensor:
    """Rows of length 1, orthogonal to each other, that span what the given ones do; as many."""
    basis: Tensor = torch.linalg.qr(rows.T)[0]
    return basis.T.contiguous()


def _centred(layer: GLoRALayer, x: Tensor, rows: Tensor) -> Tensor:
    """What rows make of the inputs, less its mean: (examples and positions, rows)."""
    values = _through(layer, x, rows)
    return values - values.mean(0)


def _through(layer: GLoRALayer, x: Tensor, rows: Tensor) -> Tensor:
    """What rows make of the inputs: (examples and positions, rows)."""
    y = layer.apply_matrix(x, rows, None)
    channels = -layer.per_channel(rows[:, 0]).dim()
    return y.movedim(channels, -1).reshape(-1, len(rows))
