"""Training: resumed equals uninterrupted, many processes equal one, and divergence is an error."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import timm
import torch
import torch.distributed as dist
from torch import nn

from glora_core.backbones import adapted_layers
from glora_core.configs import decode, encode
from glora_core.data.images import ImageSplit
from glora_core.errors import ConfigInvalid, DataInvalid, Diverged
from glora_core.evaluation import score
from glora_core.layers.storage import STORAGES
from glora_core.space import LayerShape, Override, SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import Progress, Trainer, TrainingSettings
from glora_core.training.settings import Entanglement
from tests.glora_core.two_processes import in_two_processes

POLICIES = ("random", "sandwich", "full-sandwich", "fixed")
EPOCHS = 4


@pytest.fixture
def make_trainer(make_vit: Callable[..., nn.Module], space: SearchSpace, toy_split: ImageSplit) -> Callable[..., Trainer]:
    """A factory of trainers that all start from the same weights; 30 images in batches of 8 leave a ragged last batch."""

    def make(policy: str = "random", form: str = "normalised", **changes: object) -> Trainer:
        arguments = {"epochs": EPOCHS, "batch_size": 8, "policy": policy, "fixed": fixed_code(space) if policy == "fixed" else None}
        return Trainer(Supernet(make_vit(), space, form), toy_split, TrainingSettings(**(arguments | changes), entanglement=form))

    return make


def fixed_code(space: SearchSpace) -> str:
    """A config that has a part in every support tensor."""
    kinds = ("L3VVSV", "VL1L3VS", "SSNNV", "NNNNN")
    return "-".join(kinds[i % len(kinds)] for i in range(len(space.layers)))


def fit(trainer: Trainer) -> list[Progress]:
    progress: list[Progress] = []
    trainer.fit(progress.append)
    return progress


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in first.keys() | second.keys() if not torch.equal(first[name], second[name])]


def test_a_taught_subnet_learns_half_from_its_teacher(
    make_vit: Callable[..., nn.Module], space: SearchSpace, toy_split: ImageSplit
) -> None:
    code = fixed_code(space)
    settings = TrainingSettings(epochs=1, batch_size=30, policy="fixed", fixed=code, teachers=(code,), learning_rate=1e-3)
    supernet, teacher = Supernet(make_vit(), space), make_vit(seed=1)
    supernet.set_config(decode(code))
    with torch.no_grad():
        inputs, labels = toy_split.take(torch.arange(30))
        wanted = 0.5 * nn.functional.one_hot(labels, 3) + 0.5 * teacher(inputs).softmax(-1)
        expected = nn.functional.cross_entropy(supernet(inputs), wanted)

    (first,) = fit(Trainer(supernet, toy_split, settings, teacher=teacher))

    assert first.loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("examples", "size"), [(1, 8), (16, 8), (128, 16), (160, 20), (616, 50), (10_000, 50)])
def test_a_step_has_an_eighth_of_the_split_within_bounds_unless_told(examples: int, size: int) -> None:
    assert TrainingSettings().batch_of(examples) == size
    assert TrainingSettings(batch_size=7).batch_of(examples) == 7


@pytest.mark.parametrize("teachers", [(), ("NNNNN-NNNNN",)])
def test_teachers_and_their_network_go_together(teachers: tuple[str, ...], make_vit: Callable[..., nn.Module], space, toy_split) -> None:
    settings = TrainingSettings(policy="fixed", fixed=fixed_code(space), teachers=teachers)
    with pytest.raises(ConfigInvalid, match="accepted are some with their network, or none without one"):
        Trainer(Supernet(make_vit(), space), toy_split, settings, teacher=None if teachers else make_vit())
    with pytest.raises(ConfigInvalid, match="only a fixed subnet can be taught"):
        TrainingSettings(teachers=("NNNNN",))


@pytest.mark.parametrize("form", ["normalised", "paper"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("interrupted", [1, 3])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(make_trainer, policy, form, interrupted, tmp_path):
    whole, first, second = (make_trainer(policy, form, clip_norm=0.5, ema=0.9, tensor_rates={"B": 2.0}) for _ in range(3))
    expected = fit(whole)

    def stop(progress: Progress) -> None:
        if progress.epoch == interrupted:
            torch.save(first.state(), tmp_path / "state.pt")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        first.fit(stop)
    second.load_state(torch.load(tmp_path / "state.pt"))
    resumed = fit(second)
    assert differing(second.supernet.trainable_state(), whole.supernet.trainable_state()) == []
    assert [(p.epoch, p.loss, p.learning_rate) for p in resumed] == [(p.epoch, p.loss, p.learning_rate) for p in expected[interrupted:]]


def test_a_state_taken_is_not_changed_by_further_training(make_trainer):
    trainer, states = make_trainer(), []
    trainer.fit(lambda progress: states.append((trainer.state(), copy.deepcopy(trainer.state()))))
    taken, at_the_time = states[0]
    moments = [{k: v["exp_avg"] for k, v in state["optimizer"]["state"].items()} for state in (taken, at_the_time)]
    assert differing(taken["trainable"], at_the_time["trainable"]) == []
    assert differing(*moments) == []


def test_a_state_can_be_loaded_twice(make_trainer):
    source, first, second = make_trainer(), make_trainer(), make_trainer()
    state = {}
    source.fit(lambda progress: state.update(copy.deepcopy(source.state())) if progress.epoch == 1 else None)
    first.load_state(state)
    fit(first)
    second.load_state(state)
    fit(second)
    assert differing(first.supernet.trainable_state(), second.supernet.trainable_state()) == []


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_settings_train_equal_weights_and_another_seed_others(make_trainer, policy):
    trainers = [make_trainer(policy), make_trainer(policy), make_trainer(policy, seed=1)]
    for trainer in trainers:
        fit(trainer)
    first, again, other = (trainer.supernet.trainable_state() for trainer in trainers)
    assert differing(first, again) == []
    assert differing(first, other)


@pytest.mark.parametrize("policy", POLICIES)
def test_loss_falls_on_a_learnable_data_set(make_trainer, policy):
    losses = [p.loss for p in fit(make_trainer(policy, epochs=15, learning_rate=1e-2))]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("policy", POLICIES)
def test_loss_falls_in_the_papers_form_too(make_trainer, policy):
    losses = [p.loss for p in fit(make_trainer(policy, "paper", epochs=15, learning_rate=3e-3))]
    assert losses[-1] < 0.8 * losses[0]


def test_a_trained_supernet_tells_the_toy_classes_apart(make_trainer):
    trainer = make_trainer("fixed", epochs=15, learning_rate=1e-2)
    fit(trainer)
    assert score(trainer.supernet, trainer.split, 8).accuracy > 0.9


def test_reported_loss_of_the_first_epoch_is_near_that_of_guessing(make_trainer):
    (first, *_) = fit(make_trainer(learning_rate=1e-9))
    assert first.loss == pytest.approx(torch.tensor(3.0).log().item(), abs=0.3)


def test_reported_loss_is_the_mean_over_all_examples_also_of_a_ragged_last_batch(make_trainer):
    trainer = make_trainer("fixed", learning_rate=1e-12, weight_decay=0.0, epochs=1)
    expected = score(trainer.supernet, trainer.split, 30).loss
    assert fit(trainer)[0].loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_huge_learning_rate_is_reported_as_divergence(make_trainer, policy):
    with pytest.raises(Diverged, match="lower learning rate"):
        fit(make_trainer(policy, learning_rate=1e30))


def test_the_learning_rate_warms_up_to_its_peak_and_ends_near_zero(make_trainer):
    trainer = make_trainer(epochs=10, warmup=0.3, learning_rate=1e-3, batch_size=30)
    rates = [p.learning_rate for p in fit(trainer)]
    assert rates[:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert max(rates) <= 1e-3
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 <= rates[-1] < 0.06 * 1e-3


def test_warm_up_in_epochs_takes_the_place_of_a_share(make_trainer):
    by_epochs, by_share = (make_trainer(epochs=10, learning_rate=1e-3, **warmup) for warmup in ({"warmup_epochs": 3}, {"warmup": 0.3}))
    assert [p.learning_rate for p in fit(by_epochs)] == [p.learning_rate for p in fit(by_share)]
    assert differing(by_epochs.supernet.trainable_state(), by_share.supernet.trainable_state()) == []


def test_no_epochs_of_warm_up_begin_at_the_peak(make_trainer):
    assert make_trainer(warmup_epochs=0)._schedule(0) == 1.0


def test_progress_reports_the_learning_rate_of_the_last_step_of_each_epoch(make_trainer):
    trainer = make_trainer(epochs=3, warmup=0.0, learning_rate=1e-3)
    rates = [row.learning_rate for row in fit(trainer)]
    steps = trainer.steps_per_epoch
    assert rates == pytest.approx([1e-3 * trainer._schedule(epoch * steps - 1) for epoch in (1, 2, 3)])


def test_progress_counts_the_epochs(make_trainer):
    assert [(p.epoch, p.epochs) for p in fit(make_trainer())] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_finished_training_trains_no_further(make_trainer):
    trainer = make_trainer()
    fit(trainer)
    before = trainer.supernet.trainable_state()
    assert fit(trainer) == []
    assert differing(trainer.supernet.trainable_state(), before) == []


def test_a_fixed_policy_trains_its_config_and_leaves_the_numbers_of_others_alone(make_trainer, space):
    code = "-".join(["NNNNV"] * len(space.layers))
    trainer = make_trainer("fixed", fixed=code)
    before = trainer.supernet.trainable_state()
    fit(trainer)
    changed = differing(before, trainer.supernet.trainable_state())
    assert {name.rsplit(".", 1)[-1] for name in changed} == {"E_vector", "weight", "bias"}
    assert len([name for name in changed if name.endswith("E_vector")]) == len(space.layers)


def test_a_random_policy_trains_another_subnet_in_every_step(make_trainer, monkeypatch):
    trainer, trained = make_trainer(), []
    switch = trainer.supernet.set_config
    monkeypatch.setattr(trainer.supernet, "set_config", lambda config: (trained.append(encode(config)), switch(config)))
    fit(trainer)
    assert len(trained) == len(set(trained)) == EPOCHS * 4


def test_a_sandwich_policy_trains_the_largest_and_one_random_subnet_in_every_step(make_trainer, space, monkeypatch):
    trainer, trained = make_trainer("sandwich"), []
    switch = trainer.supernet.set_config
    monkeypatch.setattr(trainer.supernet, "set_config", lambda config: (trained.append(config), switch(config)))
    fit(trainer)
    assert set(trained[::2]) == {space.extreme(largest=True)}
    assert len(set(trained[1::2])) == EPOCHS * 4


def test_every_example_is_trained_once_per_epoch_in_another_order_each_time(make_trainer, monkeypatch):
    trainer, rows = make_trainer(epochs=2), []
    take = ImageSplit.take
    monkeypatch.setattr(ImageSplit, "take", lambda split, indices: (rows.append(indices), take(split, indices))[1])
    fit(trainer)
    epochs = [torch.cat(rows[:4]).tolist(), torch.cat(rows[4:]).tolist()]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(30))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    "arguments", [{"policy": "fixed"}, {"policy": "random", "fixed": "NNNNN"}, {"policy": "random", "start": "key"}], ids=str
)
def test_settings_that_contradict_each_other_are_refused(arguments):
    with pytest.raises(ConfigInvalid):
        TrainingSettings(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        *({name: value} for name in ("epochs", "batch_size", "subnets") for value in (0, -1, 1.5, True, "3")),
        *({"learning_rate": value} for value in (0.0, -1.0, math.nan, math.inf, "0.1", True)),
        *({"weight_decay": value} for value in (-1e-4, math.nan, math.inf)),
        *({"clip_norm": value} for value in (0.0, -1.0, math.nan)),
        *({name: value} for name in ("ema", "label_smoothing", "drop_path") for value in (-0.1, 1.0, 5, math.nan)),
        *({"warmup": value} for value in (-0.1, 1.1, 5, math.nan)),
        *({"seed": value} for value in (-1, 0.5, True)),
        *({"warmup_epochs": value} for value in (-1, 1.5, 61, True)),
        {"entanglement": "papper"},
        {"augment": "flip"},
        {"sampling": "budget", "budget": 100.5},
        {"tensor_rates": {"A": math.nan}},
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused_by_name(arguments):
    with pytest.raises(ConfigInvalid, match=list(arguments)[-1]):
        TrainingSettings(**arguments)


def test_settings_know_every_form_of_entanglement():
    assert set(get_args(Entanglement)) == set(STORAGES)


def test_another_form_of_entanglement_than_the_supernets_is_refused(trained, toy_split):
    with pytest.raises(ConfigInvalid, match="entanglement 'paper' is not this supernet's, which is 'normalised'"):
        Trainer(trained, toy_split, TrainingSettings(entanglement="paper"))


def test_an_empty_training_split_is_refused(trained, toy_split):
    with pytest.raises(DataInvalid, match="training split is empty"):
        Trainer(trained, toy_split.part(torch.arange(0)), TrainingSettings())


def test_settings_read_back_from_their_plain_form():
    settings = TrainingSettings(policy="fixed", fixed="NNNNV", start="key", epochs=3)
    assert TrainingSettings(**settings.to_dict()) == settings


def gradient_norm(trainer: Trainer) -> float:
    """Of the last step, over all that it used."""
    return float(torch.stack([p.grad.norm() for _, p in trainer.supernet.trainable() if p.grad is not None]).norm())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_steps_gradient_is_clipped_to_the_norm_that_is_set(make_trainer, policy):
    free, clipped = make_trainer(policy, epochs=1), make_trainer(policy, epochs=1, clip_norm=1e-3)
    fit(free)
    fit(clipped)
    assert gradient_norm(free) > 2e-3
    assert gradient_norm(clipped) == pytest.approx(1e-3, rel=1e-3)


def test_a_norm_that_no_gradient_reaches_clips_nothing(make_trainer):
    free, clipped = make_trainer(), make_trainer(clip_norm=1e9)
    fit(free)
    fit(clipped)
    assert differing(free.supernet.trainable_state(), clipped.supernet.trainable_state()) == []


UNEVEN = SearchSpace.of(
    [LayerShape("blocks.0.attn.qkv", 32, 96), LayerShape("blocks.0.attn.proj", 32, 32), LayerShape("blocks.0.mlp.fc1", 32, 128)],
    kinds={"A": ["none"], "B": ["none"], "C": ["none"], "D": ["none"]},
    overrides=[
        Override.of("*.proj", kinds={"E": ["vector"]}),
        Override.of("*.fc1", ranks=[1, 2], kinds={"B": ["lora", "none"], "D": ["scalar", "none"]}),
    ],
)


def test_a_random_policy_trains_a_space_whose_layers_differ(make_vit, toy_split):
    trainer = Trainer(Supernet(make_vit(), UNEVEN), toy_split, TrainingSettings(epochs=3, batch_size=8, policy="random"))
    losses = [progress.loss for progress in fit(trainer)]
    assert losses[-1] < losses[0]


def test_averages_take_the_place_of_the_trained_numbers_after_the_last_epoch_and_not_before(make_trainer):
    plain, averaged = make_trainer("fixed"), make_trainer("fixed", ema=0.999)
    states = {id(trainer): [] for trainer in (plain, averaged)}
    for trainer in (plain, averaged):
        trainer.fit(lambda progress, trainer=trainer: states[id(trainer)].append(trainer.supernet.trainable_state()))
    equal = [differing(a, b) == [] for a, b in zip(states[id(plain)], states[id(averaged)], strict=True)]
    assert equal == [True, True, True, False]


def test_an_average_lies_between_the_numbers_it_is_an_average_of(make_trainer):
    trainer, seen = make_trainer("fixed", ema=0.9), []
    assert all(torch.equal(a, p) for a, p in zip(trainer.state()["averages"], trainer._parameters, strict=True)), "both where B starts"
    step = trainer._optimizer.step
    trainer._optimizer.step = lambda: (step(), seen.append(trainer.supernet.trainable_state()))
    fit(trainer)
    for name, value in trainer.supernet.trainable_state().items():
        path = torch.stack([state[name] for state in seen])
        assert bool((value >= path.min(0).values - 1e-6).all() and (value <= path.max(0).values + 1e-6).all()), name


def test_cycles_are_trainings_in_a_row_whose_ends_are_averaged(make_trainer):
    rates, seen = [], []
    trainer = make_trainer("fixed", epochs=5, cycles=2)
    end = trainer._end_cycle
    trainer._end_cycle = lambda: (seen.append(trainer.supernet.trainable_state()), end())
    trainer.fit(lambda progress: rates.append(progress.learning_rate))

    assert trainer.settings.cycle_ends == (2, 5)
    assert rates[0] > rates[1] < rates[2] > rates[3] > rates[4]
    for name, value in trainer.supernet.trainable_state().items():
        torch.testing.assert_close(value, (seen[0][name] + seen[1][name]) / 2, msg=name)
    first = make_trainer("fixed", epochs=2)
    fit(first)
    assert differing(first.supernet.trainable_state(), seen[0]) == []


@pytest.mark.parametrize("interrupted", [1, 2, 3, 5])
def test_a_training_in_cycles_resumes_bit_for_bit(make_trainer, interrupted):
    whole, first, second = (make_trainer("fixed", epochs=6, cycles=3) for _ in range(3))
    fit(whole)

    def stop(progress: Progress) -> None:
        if progress.epoch == interrupted:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        first.fit(stop)
    second.load_state(first.state())
    fit(second)
    assert differing(second.supernet.trainable_state(), whole.supernet.trainable_state()) == []


def test_a_tensor_whose_rate_is_zero_is_not_trained(make_trainer):
    trainer = make_trainer("fixed", tensor_rates={"B": 0.0, "head": 0.0}, weight_decay=0.0)
    before = trainer.supernet.trainable_state()
    fit(trainer)
    changed = differing(before, trainer.supernet.trainable_state())
    assert changed
    assert not any("support.B" in name or "head" in name for name in changed)


def test_augmented_training_resumes_bit_for_bit_and_differs_from_plain_training(make_trainer):
    plain, whole, first, second = make_trainer(), *(make_trainer(augment=("crop", "colour")) for _ in range(3))
    fit(plain)
    fit(whole)
    state = {}
    first.fit(lambda progress: state.update(copy.deepcopy(first.state())) if progress.epoch == 2 else None)
    second.load_state(state)
    fit(second)
    assert differing(second.supernet.trainable_state(), whole.supernet.trainable_state()) == []
    assert differing(plain.supernet.trainable_state(), whole.supernet.trainable_state())


def test_label_smoothing_keeps_the_loss_above_the_entropy_of_its_labels(make_trainer):
    smoothed = fit(make_trainer("fixed", epochs=15, learning_rate=1e-2, label_smoothing=0.3))[-1].loss
    entropy = -(0.8 * torch.tensor(0.8).log() + 2 * 0.1 * torch.tensor(0.1).log()).item()
    assert entropy < smoothed < 1.5 * entropy


def test_mixed_precision_keeps_trained_numbers_in_float32_and_its_losses_near_those_of_float32(make_trainer):
    exact, mixed = (make_trainer("fixed", epochs=3, precision=precision) for precision in ("float32", "bfloat16"))
    losses = [[progress.loss for progress in fit(trainer)] for trainer in (exact, mixed)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert all(parameter.dtype == torch.float32 for _, parameter in mixed.supernet.trainable())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "greedy"}, "policy 'greedy' is unknown; accepted: random, sandwich, full-sandwich, fixed"),
        ({"sampling": "odd"}, "sampling 'odd' is unknown"),
        ({"precision": "float16"}, "precision 'float16' is unknown; accepted: float32, bfloat16"),
        ({"sampling": "budget"}, "sampling 'budget' and a budget go together"),
        ({"budget": 10}, "sampling 'budget' and a budget go together"),
        ({"subnets": 0}, "subnets is 0"),
        ({"augment": ("blur",)}, "augment 'blur' is unknown; accepted: crop, affine, flip, colour"),
        ({"ema": 1.0}, "ema 1.0"),
        ({"cycles": 0}, "cycles"),
        ({"cycles": 4, "epochs": 3}, "cycles are 4; accepted are at most as many as the 3 epochs"),
        ({"cycles": 2, "ema": 0.9}, "without ema and patience"),
        ({"cycles": 2, "patience": 3}, "without ema and patience"),
        ({"label_smoothing": -0.1}, "label_smoothing -0.1"),
        ({"tensor_rates": {"F": 1.0}}, "A, B, C, D, E or head"),
        ({"tensor_rates": {"A": -1.0}}, "at least 0"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_by_name(changes, message):
    with pytest.raises(ConfigInvalid, match=message):
        TrainingSettings(**changes)


def train_in_process(rank: int, world: int, folder: Path, policy: str, drop_path: float = 0.0) -> None:
    """One process of a group: trains its share of every batch; the state of each is left in the folder."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    torch.manual_seed(0)
    backbone = timm.create_model(
        "vit_tiny_patch16_224", num_classes=3, img_size=8, patch_size=4, embed_dim=16, depth=2 if drop_path else 1, num_heads=2
    ).double()
    space = SearchSpace(adapted_layers(backbone), ranks=(1, 3))
    labels = torch.arange(25) % 3
    pixels = torch.randint(0, 256, (25, 3, 8, 8), generator=torch.Generator().manual_seed(5)).to(torch.uint8)
    split = DoubleSplit(pixels, labels, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    fixed = fixed_code(space) if policy == "fixed" else None
    # 25 images in batches of 8: the last batch is one image, so that one process of two has none
    common = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "augment": ("crop", "flip", "colour")}
    settings = TrainingSettings(**common, policy=policy, fixed=fixed, drop_path=drop_path)
    trainer = Trainer(Supernet(backbone, space).double(), split, settings)
    losses = [progress.loss for progress in fit(trainer)]
    torch.save({"trainable": trainer.supernet.trainable_state(), "losses": losses}, folder / f"{rank}.pt")
    if world > 1:
        dist.destroy_process_group()


class DoubleSplit(ImageSplit):
    """A split in float64, so that the order of sums over processes hardly shows."""

    def take(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = super().take(indices)
        return images.double(), labels


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_two_processes_train_what_one_process_trains(tmp_path, policy):
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    train_in_process(0, 1, alone, policy)
    in_two_processes(train_in_process, together, policy)
    expected, *actual = (torch.load(path) for path in (alone / "0.pt", together / "0.pt", together / "1.pt"))
    assert differing(actual[0]["trainable"], actual[1]["trainable"]) == []
    # float64 sums in another order (1e-16), through 12 steps of an optimiser that divides by small moments
    torch.testing.assert_close(actual[0]["trainable"], expected["trainable"], rtol=1e-6, atol=1e-8)
    assert actual[0]["losses"] == pytest.approx(expected["losses"], rel=1e-8)
