"""The dense reference, against sums written out element by element."""

import pytest
import torch

from glora_core.layers import dense_bias, dense_linear, dense_weight

OUT, IN = 3, 4


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"W": (OUT, IN), "b": (OUT,), "A": (OUT, IN), "B": (OUT, IN), "C": (IN,), "D": (OUT,), "E": (OUT,), "x": (IN,)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def test_output_is_the_formula_written_out_element_by_element(tensors):
    W, b, A, B, C, D, E, x = (tensors[name] for name in "WbABCDEx")
    expected = [
        sum((W[o, i] + W[o, i] * A[o, i] + B[o, i]) * x[i] + W[o, i] * C[i] for i in range(IN)) + D[o] * b[o] + E[o] + b[o]
        for o in range(OUT)
    ]
    torch.testing.assert_close(dense_linear(x, W, b, A, B, C, D, E), torch.stack(expected), rtol=1e-13, atol=1e-13)


def test_without_support_tensors_the_weight_and_bias_are_the_backbones(tensors):
    assert torch.equal(dense_weight(tensors["W"], None, None), tensors["W"])
    assert torch.equal(dense_bias(tensors["W"], tensors["b"], None, None, None), tensors["b"])


def test_without_a_bias_nor_C_D_E_there_is_no_bias(tensors):
    assert dense_bias(tensors["W"], None, None, None, None) is None


@pytest.mark.parametrize("given", ["C", "D", "E"])
def test_a_missing_bias_counts_as_zero_where_a_support_tensor_asks_for_one(tensors, given):
    support = {name: tensors[name] if name == given else None for name in "CDE"}
    actual = dense_bias(tensors["W"], None, **support)
    expected = dense_bias(tensors["W"], torch.zeros(OUT, dtype=torch.float64), **support)
    assert torch.equal(actual, expected)
