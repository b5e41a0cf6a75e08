"""A training step never changes a number that its subnet does not use: not by weight decay, momentum, clipping or a step count.

Which stored numbers a choice uses is written out here from the design: a low rank uses the leading columns of the
higher ones; in the paper's form every choice of a tensor also uses what smaller choices use.
"""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glora_core.backbones import adapted_layers
from glora_core.configs import SubnetConfig, decode, encode
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import Trainer, TrainingSettings

RANKS = (1, 3, 5)
FORMS = ("normalised", "paper")
STEPS = 4  # per epoch: 30 images in batches of 8
HEAD = {"backbone.head.weight", "backbone.head.bias"}

every_form = pytest.mark.parametrize("form", FORMS)
shared_fixtures = settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])


def used(supernet: Supernet, config: SubnetConfig) -> set[str]:
    """Names of the trainable tensors that a subnet uses."""
    own, names = supernet.entanglement == "normalised", set(HEAD)
    for shape, layer in zip(supernet.space.layers, config, strict=True):
        for tensor in "ABCDE":
            choice, reads = layer[tensor], set[str]()
            if choice.kind == "lora":
                steps = [low for low in (0, *RANKS) if low < choice.rank]
                reads |= {f"up_{low}" for low in steps} | {f"down_{low}" for low in steps}
            if choice.kind != "none" and not own:
                reads |= {"first"} if choice.kind == "scalar" else {"first", "rest"}
            elif choice.kind in ("vector", "scalar"):
                reads |= {choice.kind}
            names |= {f"backbone.{shape.name}.support.{tensor}_{part}" for part in reads}
    return names & {name for name, _ in supernet.trainable()}


@pytest.fixture
def make_trainer(make_vit, toy_split) -> Callable[..., Trainer]:
    """A factory of trainers with weight decay, momentum and clipping over a ViT of one block at three ranks."""

    def make(form: str, supernet: Supernet | None = None, **changes: object) -> Trainer:
        if supernet is None:
            model = make_vit(depth=1)
            supernet = Supernet(model, SearchSpace.of(adapted_layers(model), RANKS), form)
        values = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "weight_decay": 0.1, "clip_norm": 0.5, "entanglement": form}
        return Trainer(supernet, toy_split, TrainingSettings(**(values | changes)))

    return make


@pytest.fixture
def trained_on(make_trainer) -> Callable[..., tuple[Trainer, dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]]:
    """Trains all numbers for a while, then one config for an epoch; returns the trainer with the numbers and moments in between."""

    def train(form: str, config: SubnetConfig) -> tuple[Trainer, dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]:
        first = make_trainer(form, policy="sandwich")
        first.fit()
        state = first.state()
        second = make_trainer(form, first.supernet, policy="fixed", fixed=encode(config), epochs=3)
        second.load_state(state)
        second.fit()
        return second, state["trainable"], moments(first, state)

    return train


def moments(trainer: Trainer, state: dict | None = None) -> dict[str, dict[str, torch.Tensor]]:
    """The optimiser's state of each trainable tensor that it has one for, by name."""
    names = [name for name, _ in trainer.supernet.trainable()]
    return {names[index]: dict(found) for index, found in (state or trainer.state())["optimizer"]["state"].items()}


def random_config(trainer: Trainer, seed: int) -> SubnetConfig:
    space = trainer.supernet.space
    return FeasibleSampler(space, space.maximum).sample(stream(seed))


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def recorded(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[SubnetConfig]:
    """The configs that the trainer switches to, as it goes."""
    configs, switch = [], trainer.supernet.set_config
    monkeypatch.setattr(trainer.supernet, "set_config", lambda config: (configs.append(config), switch(config)))
    return configs


@every_form
@shared_fixtures
@given(seed=st.integers(0, 2**32))
def test_steps_of_a_subnet_change_the_numbers_it_uses_and_leave_all_others_bit_for_bit(make_trainer, trained_on, form, seed):
    config = random_config(make_trainer(form), seed)
    trainer, before, _ = trained_on(form, config)
    after = trainer.supernet.trainable_state()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == used(trainer.supernet, config)


@every_form
@shared_fixtures
@given(seed=st.integers(0, 2**32))
def test_steps_of_a_subnet_advance_the_optimiser_for_the_numbers_it_uses_and_for_no_others(make_trainer, trained_on, form, seed):
    config = random_config(make_trainer(form), seed)
    trainer, _, before = trained_on(form, config)
    after, active = moments(trainer), used(trainer.supernet, config)
    assert [name for name in after if name not in active and not same(after[name], before[name])] == []
    grown = {name: int(after[name]["step"]) - int(before[name]["step"]) if name in before else int(after[name]["step"]) for name in after}
    assert grown == {name: STEPS if name in active else 0 for name in after}
    assert active <= set(after)


@every_form
@pytest.mark.parametrize("policy", ["random", "sandwich"])
def test_a_numbers_count_of_steps_is_that_of_the_steps_which_used_it(make_trainer, form, policy, monkeypatch):
    trainer = make_trainer(form, policy=policy, epochs=3)
    configs = recorded(trainer, monkeypatch)
    trainer.fit()
    size = {"random": 1, "sandwich": 2}[policy]
    steps = [set().union(*(used(trainer.supernet, c) for c in configs[i : i + size])) for i in range(0, len(configs), size)]
    assert len(steps) == 3 * STEPS
    expected = Counter(name for step in steps for name in step)
    assert {name: int(found["step"]) for name, found in moments(trainer).items()} == dict(expected)
    assert policy == "sandwich" or len(set(expected.values())) > 3


@every_form
def test_only_the_numbers_that_a_step_uses_have_a_gradient_and_are_clipped_together(make_trainer, form):
    config = random_config(make_trainer(form), 7)
    trainer = make_trainer(form, policy="fixed", fixed=encode(config), epochs=1, clip_norm=1e-4)
    trainer.fit()
    gradients = {name: parameter.grad for name, parameter in trainer.supernet.trainable() if parameter.grad is not None}
    assert set(gradients) == used(trainer.supernet, config)
    assert float(torch.stack([g.norm() for g in gradients.values()]).norm()) == pytest.approx(1e-4, rel=1e-3)


@every_form
def test_a_subnet_trains_alike_whatever_moments_the_numbers_it_does_not_use_have(make_trainer, form):
    config = decode("-".join(["NL3NNV"] * 4))
    alone, after_others = (make_trainer(form, policy="fixed", fixed=encode(config), epochs=1, clip_norm=1e-3) for _ in range(2))
    unused = [p for name, p in after_others.supernet.trainable() if name not in used(after_others.supernet, config)]
    for parameter in unused:
        parameter.grad = torch.full_like(parameter, 1e3)
    after_others._optimizer.step()
    alone.fit()
    after_others.fit()
    names = used(alone.supernet, config)
    first, second = alone.supernet.trainable_state(), after_others.supernet.trainable_state()
    assert [name for name in names if not torch.equal(first[name], second[name])] == []


@every_form
@pytest.mark.parametrize(("trained", "others"), [(1, (3, 5)), (3, (1, 5)), (5, (1, 3))])
@pytest.mark.parametrize("tensor", ["A", "B", "C"])
def test_training_one_rank_changes_the_leading_columns_of_all_others(make_trainer, form, trained, others, tensor):
    code = {"A": f"L{trained}NNNN", "B": f"NL{trained}NNN", "C": f"NNL{trained}NN"}[tensor]
    trainer = make_trainer(form, policy="fixed", fixed="-".join([code] * 4), epochs=1)
    (_, layer) = next(trainer.supernet.layers())
    before = {rank: [part.detach().clone() for part in layer.support.factors(tensor, rank)] for rank in others}
    trainer.fit()
    for rank in others:
        common = min(rank, trained)
        for old, new, dim in zip(before[rank], layer.support.factors(tensor, rank), (1, 0), strict=True):
            assert not torch.equal(old.narrow(dim, 0, common), new.narrow(dim, 0, common))
            assert torch.equal(old.narrow(dim, common, rank - common), new.narrow(dim, common, rank - common))


@pytest.mark.parametrize(("trained", "rows", "columns"), [("SNNNN", 1, 1), ("VNNNN", 96, 1), ("L1NNNN", 96, 1), ("L3NNNN", 96, 3)])
def test_in_the_papers_form_the_scalar_is_part_of_the_vector_and_the_vector_of_the_factor(make_trainer, trained, rows, columns):
    trainer = make_trainer("paper", policy="fixed", fixed="-".join([trained] * 4), epochs=1)
    (_, layer) = next(trainer.supernet.layers())
    trainer.fit()
    down = layer.support.down("A", 5).detach()
    expected = torch.zeros(96, 5, dtype=torch.bool)
    expected[:rows, :columns] = True
    assert torch.equal(down != 0, expected)
