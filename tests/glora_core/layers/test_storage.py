"""Which numbers each choice reads: shapes, initial values, sharing and scales of both forms of entanglement."""

import math

import pytest
import torch

from glora_core.configs import KINDS, NONE, SCALAR, TENSORS, VECTOR, Choice, lora
from glora_core.errors import ConfigInvalid
from glora_core.layers import make_storage

IN, OUT, RANK = 5, 4, 3
FORMS = ("paper", "normalised")
ACTIVE = [(tensor, kind) for tensor in TENSORS for kind in KINDS[tensor] if kind != "none"]


def storage(form: str, seed: int = 0, random: bool = True):
    made = make_storage(form, IN, OUT, RANK, torch.Generator().manual_seed(seed)).double()
    if random:
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.normal_(generator=generator)
    return made


def choice_of(kind: str) -> Choice:
    return lora(RANK) if kind == "lora" else Choice(kind)


def test_unknown_form_is_refused_with_the_accepted_ones():
    with pytest.raises(ConfigInvalid, match=r"'shared'.*paper, normalised"):
        make_storage("shared", IN, OUT, RANK, torch.Generator())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("tensor", "kind"), ACTIVE)
def test_acting_tensor_has_the_shape_of_the_table(form, tensor, kind):
    matrix = {"lora": (OUT, IN), "vector": (OUT, 1), "scalar": ()}
    shapes = {"A": matrix, "B": matrix, "C": {"lora": (IN,), "vector": (IN,)}}
    expected = shapes.get(tensor, {"vector": (OUT,), "scalar": ()})[kind]
    assert storage(form).acting(tensor, choice_of(kind)).shape == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tensor", TENSORS)
def test_none_acts_as_nothing(form, tensor):
    assert storage(form).acting(tensor, NONE) is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("tensor", "kind"), ACTIVE)
def test_every_choice_acts_as_zero_before_training(form, tensor, kind):
    acting = storage(form, random=False).acting(tensor, choice_of(kind))
    assert torch.count_nonzero(acting) == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("tensor", "columns"), [("A", IN), ("B", IN), ("C", 1)])
def test_up_factors_start_by_xavier_so_that_gradients_reach_the_down_factors(form, tensor, columns):
    up = getattr(storage(form, random=False), f"{tensor}_up")
    assert up.shape == (RANK, columns)
    assert up.abs().min() > 0
    assert up.abs().max() <= math.sqrt(6 / (RANK + columns))


@pytest.mark.parametrize("form", FORMS)
def test_equal_seeds_give_equal_initial_values_and_others_do_not(form):
    first, again, other = (storage(form, seed, random=False).A_up for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tensor", ["A", "B"])
def test_a_lower_rank_takes_the_leading_columns_of_a_higher_one(form, tensor):
    made = storage(form)
    down, up = made.factors(tensor, RANK)
    torch.testing.assert_close(made.acting(tensor, lora(2)), down[:, :2] @ up[:2])


@pytest.mark.parametrize("tensor", ["A", "B"])
def test_paper_form_reads_the_vector_from_the_first_column_and_the_scalar_from_its_first_element(tensor):
    made = storage("paper")
    down = getattr(made, f"{tensor}_down")
    assert torch.equal(made.acting(tensor, VECTOR), down[:, :1])
    assert torch.equal(made.acting(tensor, SCALAR), down[0, 0])


def test_paper_form_reads_C_from_the_first_column_of_its_factor():
    made = storage("paper")
    assert torch.equal(made.acting("C", VECTOR), made.C_down[:, 0])


@pytest.mark.parametrize("tensor", ["D", "E"])
def test_paper_form_reads_the_scalar_of_D_and_E_from_the_vectors_first_element(tensor):
    made = storage("paper")
    assert torch.equal(made.acting(tensor, SCALAR), made.acting(tensor, VECTOR)[0])


@pytest.mark.parametrize(("tensor", "kind"), ACTIVE)
def test_normalised_form_keeps_the_numbers_of_each_kind_apart(tensor, kind):
    made = storage("normalised")
    reads = {
        other: {name for name, parameter in made.named_parameters() if _depends(made, tensor, other, parameter)}
        for other in KINDS[tensor]
        if other != "none"
    }
    shared = [other for other in reads if other != kind and reads[other] & reads[kind]]
    assert reads[kind]
    assert not shared


@pytest.mark.parametrize(
    ("tensor", "kind", "stored", "scale"),
    [
        ("A", "vector", "A_vector", 1.0),
        ("A", "scalar", "A_scalar", 1.0),
        ("B", "vector", "B_vector", 1 / IN),
        ("B", "scalar", "B_scalar", 1 / IN),
        ("C", "vector", "C_vector", 0.25 / math.sqrt(IN)),
        ("D", "vector", "D_vector", 1.0),
        ("D", "scalar", "D_scalar", 1.0),
        ("E", "vector", "E_vector", 1.0),
        ("E", "scalar", "E_scalar", 1.0),
    ],
)
def test_normalised_form_scales_stored_numbers_as_documented(tensor, kind, stored, scale):
    made = storage("normalised")
    acting = made.acting(tensor, choice_of(kind))
    torch.testing.assert_close(acting.flatten(), getattr(made, stored).flatten() * scale)


@pytest.mark.parametrize(("tensor", "scale"), [("A", 1.0), ("B", 1.0), ("C", 0.25 / math.sqrt(IN))])
def test_normalised_form_scales_low_rank_products_as_documented(tensor, scale):
    made = storage("normalised")
    product = getattr(made, f"{tensor}_down") @ getattr(made, f"{tensor}_up") * scale
    torch.testing.assert_close(made.acting(tensor, lora(RANK)).flatten(), product.flatten())


@pytest.mark.parametrize("form", FORMS)
def test_acting_tensor_can_be_had_in_another_precision(form):
    made = storage(form).float()
    assert made.acting("A", lora(2), torch.float64).dtype == torch.float64
    assert made.acting("E", VECTOR, torch.float64).dtype == torch.float64
    assert made.acting("E", VECTOR).dtype == torch.float32


def _depends(made, tensor: str, kind: str, parameter: torch.Tensor) -> bool:
    total = made.acting(tensor, choice_of(kind)).sum()
    (gradient,) = torch.autograd.grad(total, [parameter], allow_unused=True)
    return gradient is not None and bool(gradient.any())
