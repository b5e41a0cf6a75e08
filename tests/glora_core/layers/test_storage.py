"""Which numbers each choice reads: shapes, initial values, sharing, scales and what is allocated, in both forms of entanglement."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glora_core.configs import KINDS, NONE, SCALAR, TENSORS, VECTOR, Choice, LayerConfig, lora, parse_layer
from glora_core.errors import ConfigInvalid
from glora_core.layers import LayerStorage, make_storage
from glora_core.space import LayerShape, SearchSpace

IN, OUT, RANK = 5, 4, 3
FORMS = ("paper", "normalised")
ACTIVE = [(tensor, kind) for tensor in TENSORS for kind in KINDS[tensor] if kind != "none"]
Allowed = dict[str, tuple[Choice, ...]]


def everything(*ranks: int) -> Allowed:
    """All choices of all tensors, at some ranks."""
    (allowed,) = SearchSpace.of([LayerShape("layer", IN, OUT)], ranks).choices
    return dict(allowed)


def storage(form: str, seed: int = 0, random: bool = True, allowed: Allowed | None = None) -> LayerStorage:
    made = make_storage(form, IN, OUT, everything(RANK) if allowed is None else allowed, torch.Generator().manual_seed(seed)).double()
    if random:
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.normal_(generator=generator)
    return made


def choice_of(kind: str) -> Choice:
    return lora(RANK) if kind == "lora" else Choice(kind)


def names(made: LayerStorage) -> set[str]:
    return {name for name, _ in made.named_parameters()}


def test_unknown_form_is_refused_with_the_accepted_ones():
    with pytest.raises(ConfigInvalid, match=r"'shared'.*paper, normalised"):
        make_storage("shared", IN, OUT, everything(RANK), torch.Generator())


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
    up = storage(form, random=False).up(tensor, RANK)
    assert up.shape == (RANK, columns)
    assert up.abs().min() > 0
    assert up.abs().max() <= math.sqrt(6 / (RANK + columns))


@pytest.mark.parametrize("form", FORMS)
def test_up_factors_start_alike_however_many_blocks_hold_them(form):
    whole, blocks = (storage(form, random=False, allowed=everything(*ranks)) for ranks in ((RANK,), (1, 2, RANK)))
    assert torch.equal(whole.up("A", RANK), blocks.up("A", RANK))


@pytest.mark.parametrize("form", FORMS)
def test_equal_seeds_give_equal_initial_values_and_others_do_not(form):
    first, again, other = (storage(form, seed, random=False).up("A", RANK) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tensor", ["A", "B"])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_lower_rank_takes_the_leading_columns_of_a_higher_one(form, tensor, rank):
    made = storage(form, allowed=everything(1, 2, 4, 7))
    down, up = made.factors(tensor, 7)
    assert down.shape == (OUT, 7) and up.shape == (7, IN)
    torch.testing.assert_close(made.acting(tensor, lora(rank)), down[:, :rank] @ up[:rank])


@pytest.mark.parametrize("form", FORMS)
def test_ranks_of_C_take_the_leading_columns_too(form):
    made = storage(form, allowed=everything(2, 5))
    down, up = made.factors("C", 5)
    assert down.shape == (IN, 5) and up.shape == (5, 1)
    torch.testing.assert_close(made.acting("C", lora(2)), (down[:, :2] @ up[:2])[:, 0])


@pytest.mark.parametrize("tensor", ["A", "B"])
def test_paper_form_reads_the_vector_from_the_first_column_and_the_scalar_from_its_first_element(tensor):
    made = storage("paper")
    down = made.down(tensor, RANK)
    assert torch.equal(made.acting(tensor, VECTOR), down[:, :1])
    assert torch.equal(made.acting(tensor, SCALAR), down[0, 0])


def test_paper_form_reads_C_from_the_first_column_of_its_factor():
    made = storage("paper")
    assert torch.equal(made.acting("C", VECTOR), made.down("C", RANK)[:, 0])


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
    product = getattr(made, f"{tensor}_down_0") @ getattr(made, f"{tensor}_up_0") * scale
    torch.testing.assert_close(made.acting(tensor, lora(RANK)).flatten(), product.flatten())


@pytest.mark.parametrize("form", FORMS)
def test_acting_tensor_can_be_had_in_another_precision(form):
    made = storage(form).float()
    assert made.acting("A", lora(RANK), torch.float64).dtype == torch.float64
    assert made.acting("E", VECTOR, torch.float64).dtype == torch.float64
    assert made.acting("E", VECTOR).dtype == torch.float32


@pytest.mark.parametrize(
    ("form", "blocks"),
    [
        ("normalised", {"A_down_0": (OUT, 2), "A_down_2": (OUT, 5), "A_up_0": (2, IN), "A_up_2": (5, IN), "A_vector": (OUT,)}),
        (
            "paper",
            {"A_first": (1,), "A_rest": (OUT - 1,), "A_down_0": (OUT, 1), "A_down_2": (OUT, 5), "A_up_0": (2, IN), "A_up_2": (5, IN)},
        ),
    ],
)
def test_a_block_holds_what_lies_between_two_ranks(form, blocks):
    made = storage(form, allowed={"A": (lora(2), lora(7), VECTOR, NONE)})
    assert {name: tuple(parameter.shape) for name, parameter in made.named_parameters()} == blocks


@pytest.mark.parametrize(
    ("form", "allowed", "blocks"),
    [
        ("normalised", {}, set()),
        ("normalised", {"A": (NONE,), "E": (NONE,)}, set()),
        ("normalised", {"A": (SCALAR, NONE), "D": (VECTOR,)}, {"A_scalar", "D_vector"}),
        ("normalised", {"C": (lora(4),)}, {"C_down_0", "C_up_0"}),
        ("paper", {}, set()),
        ("paper", {"A": (SCALAR, NONE), "D": (VECTOR,)}, {"A_first", "D_first", "D_rest"}),
        ("paper", {"B": (lora(1),)}, {"B_first", "B_rest", "B_up_0"}),
        ("paper", {"C": (lora(4),)}, {"C_first", "C_rest", "C_down_0", "C_up_0"}),
    ],
)
def test_only_what_an_allowed_choice_reads_is_allocated(form, allowed, blocks):
    assert names(storage(form, allowed=allowed)) == blocks


choice_sets = {
    tensor: st.sets(st.sampled_from([*(Choice(kind) for kind in KINDS[tensor] if kind != "lora"), *map(lora, (1, 2, 5))]), min_size=1)
    if "lora" in KINDS[tensor]
    else st.sets(st.sampled_from([Choice(kind) for kind in KINDS[tensor]]), min_size=1)
    for tensor in TENSORS
}


@given(st.sampled_from(FORMS), st.fixed_dictionaries(choice_sets))
def test_every_allocated_number_is_read_by_some_allowed_choice_and_every_choice_finds_its_numbers(form, choices):
    allowed = {tensor: tuple(sorted(found)) for tensor, found in choices.items()}
    made = storage(form, allowed=allowed)
    read = {name for tensor in TENSORS for choice in allowed[tensor] for name in _reads(made, tensor, choice)}
    assert read == names(made)


@given(st.sampled_from(FORMS), st.fixed_dictionaries({tensor: st.sampled_from(everything(1, 2, 5)[tensor]) for tensor in TENSORS}))
def test_a_storage_that_allows_one_config_holds_exactly_the_parameters_it_counts(form, choices):
    made = storage(form, allowed={tensor: (choice,) for tensor, choice in choices.items()})
    assert sum(parameter.numel() for parameter in made.parameters()) == LayerConfig(**choices).parameters(IN, OUT)


@given(st.sampled_from(FORMS), st.fixed_dictionaries({tensor: st.sampled_from(everything(1, 2, 5)[tensor]) for tensor in TENSORS}))
def test_a_copied_slice_acts_as_its_source(form, choices):
    source, config = storage(form, seed=1, allowed=everything(1, 2, 5)), LayerConfig(**choices)
    cut = storage(form, seed=2, allowed={tensor: (choice,) for tensor, choice in choices.items()})
    cut.copy_slice(source, config)
    pairs = [(cut.acting(tensor, choice), source.acting(tensor, choice)) for tensor, choice in choices.items()]
    assert all(one is other if one is None or other is None else torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("form", FORMS)
def test_a_slice_can_be_copied_between_storages_of_other_ranks_and_changes_nothing_else(form):
    source, target = storage(form, seed=1, allowed=everything(2, 3, 6)), storage(form, seed=2, allowed=everything(1, 3, 4))
    before = target.factors("A", 4)
    target.copy_slice(source, parse_layer("L3NNNV"))
    for after, untouched, wanted, dim in zip(target.factors("A", 4), before, source.factors("A", 3), (1, 0), strict=True):
        assert torch.equal(after.narrow(dim, 0, 3), wanted)
        assert torch.equal(after.narrow(dim, 3, 1), untouched.narrow(dim, 3, 1))
    assert torch.equal(target.acting("E", VECTOR), source.acting("E", VECTOR))
    assert not torch.equal(target.acting("D", VECTOR), source.acting("D", VECTOR))


def _reads(made: LayerStorage, tensor: str, choice: Choice) -> set[str]:
    """Names of the blocks that a choice reads, told by autograd."""
    acting = made.acting(tensor, choice)
    if acting is None:
        return set()
    found = torch.autograd.grad(acting.sum(), list(made.parameters()), allow_unused=True)
    return {name for (name, _), gradient in zip(made.named_parameters(), found, strict=True) if gradient is not None}


def _depends(made: LayerStorage, tensor: str, kind: str, parameter: torch.Tensor) -> bool:
    total = made.acting(tensor, choice_of(kind)).sum()
    (gradient,) = torch.autograd.grad(total, [parameter], allow_unused=True)
    return gradient is not None and bool(gradient.any())
