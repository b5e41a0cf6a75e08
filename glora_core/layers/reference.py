"""The formula, written as the paper has it: the slow, dense reference that every faster path is tested against.

    f(x)  = (W0 + W0∘A + B) x + W0 c + D∘b0 + E + b0
    W_uni = W0 + W0∘A + B          b_uni = W0 c + D∘b0 + E + b0

Chavan et al., "One-for-All: Generalized LoRA", arXiv 2306.07967, with the elementwise product of the authors' code.
Imports only torch.
"""

import torch
from torch import Tensor


def dense_weight(weight: Tensor, A: Tensor | None, B: Tensor | None) -> Tensor:
    """W_uni = W0 + W0∘A + B.

    Args:
        weight: (out, in), the frozen W0.
        A, B: broadcastable to (out, in), or None for the choice `none`.

    Returns:
        (out, in), in the dtype of the arguments.
    """
    merged = weight
    if A is not None:
        merged = merged + weight * A
    if B is not None:
        merged = merged + B
    return merged


def dense_bias(weight: Tensor, bias: Tensor | None, C: Tensor | None, D: Tensor | None, E: Tensor | None) -> Tensor | None:
    """b_uni = W0 c + D∘b0 + E + b0; None where neither a bias nor C, D or E exists.

    Args:
        weight: (out, in); bias: (out,) or None, which counts as zero.
        C: (in,); D, E: broadcastable to (out,).
    """
    if bias is None and C is None and E is None and D is None:
        return None
    base = torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device) if bias is None else bias
    merged = base
    if C is not None:
        merged = merged + weight @ C
    if D is not None:
        merged = merged + D * base
    if E is not None:
        merged = merged + E
    return merged


def dense_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor | None = None,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    E: Tensor | None = None,
) -> Tensor:
    """f(x) of the adapted layer by the dense formula. x: (..., in); returns (..., out)."""
    return torch.nn.functional.linear(x, dense_weight(weight, A, B), dense_bias(weight, bias, C, D, E))
