"""Calibrated scales: every choice then moves its layer's output by the same share of what a low-rank B does; nothing else changes."""

import math

import pytest
import torch

from glora_core.backbones import adapted_layers
from glora_core.calibration import LARGEST, SHARE, calibrate
from glora_core.configs import LayerConfig, decode, encode, lora
from glora_core.export import apply_adapter, read_adapter, write_adapter
from glora_core.layers.storage import KINDS, NormalisedStorage
from glora_core.presets import preset
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import Trainer, TrainingSettings
from tests.glora_core.conftest import TIMM


def scales(supernet):
    return {name: module.scales for name, module in supernet.named_modules() if isinstance(module, NormalisedStorage)}


@pytest.fixture
def calibrated(make_vit, space, toy_split):
    supernet = Supernet(make_vit(), space)
    calibrate(supernet, toy_split.take(torch.arange(16))[0])
    return supernet


def test_scales_are_powers_of_two_up_to_the_largest(calibrated):
    for values in scales(calibrated).values():
        assert bool((values.log2() == values.log2().round()).all())
        assert float(values.max()) <= LARGEST


def of_rank(make_vit, toy_split, rank):
    """A calibrated supernet whose one subnet is LoRA of a rank."""
    model = make_vit()
    made = Supernet(
        model, SearchSpace(adapted_layers(model), ranks=(rank,)).covering((LayerConfig(B=lora(rank)),) * len(adapted_layers(model)))
    )
    calibrate(made, toy_split.take(torch.arange(16))[0])
    return made


@pytest.mark.parametrize(("rank", "scale"), [(1, 2.0), (2, 1.0), (3, 1.0), (4, 1.0), (8, 1.0), (16, 0.5), (64, 0.25)])
def test_a_low_rank_b_acts_at_less_the_higher_its_rank_and_at_one_about_four(make_vit, toy_split, rank, scale):
    made = of_rank(make_vit, toy_split, rank)
    assert all(float(values[1, KINDS.index("lora")]) == scale for values in scales(made).values())


def test_a_step_of_lora_moves_the_output_alike_whatever_its_rank(make_vit, toy_split):
    effects, (images, _) = {}, toy_split.take(torch.arange(16, 30))
    for rank in (1, 4, 16):
        supernet = of_rank(make_vit, toy_split, rank)
        _, layer = next(supernet.layers())
        effects[rank] = effect(layer, first_input(supernet, images), LayerConfig(B=lora(rank)))
    assert all(0.6 < effects[rank] / effects[4] < 1.6 for rank in (1, 16)), effects


def test_an_untrained_supernet_still_computes_what_its_backbone_does(calibrated, make_vit, space, toy_split):
    images, _ = toy_split.take(torch.arange(4))
    before = Supernet(make_vit(), space)
    for net in (calibrated, before):
        net.set_config(space.extreme(largest=True))
    assert torch.equal(calibrated(images), before(images))


@pytest.mark.parametrize("code", ["NVNNN", "VNNNN", "NNVNN", "NNNNV", "NSNNN", "SNNNN"])
def test_a_step_of_any_choice_moves_the_output_by_about_an_eighth_of_a_step_of_lora(calibrated, space, toy_split, code):
    """Measured on other images, through the layer's own forward pass, with other signs."""
    images, _ = toy_split.take(torch.arange(16, 30))
    _, layer = next(calibrated.layers())
    x, (config,), rank = first_input(calibrated, images), decode(code), max(space.ranks_used)
    effects = [effect(layer, x, choice) for choice in (config, LayerConfig(B=lora(rank)))]
    bounded = float(layer.support.scales.max()) == LARGEST
    assert effects[0] / effects[1] < 2.5 * SHARE
    assert bounded or effects[0] / effects[1] > 0.4 * SHARE


def first_input(supernet, images):
    """What the first adapted layer is given."""
    seen, (_, layer) = [], next(supernet.layers())
    handle = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    supernet(images)
    handle.remove()
    return seen[0]


def effect(layer, x, config):
    """Root mean square change of the output when every number that a config reads and that starts at zero moves by ±1."""
    generator = torch.Generator().manual_seed(9)
    layer.config = LayerConfig()
    before = layer(x)
    with torch.no_grad():
        for name, parameter in layer.support.named_parameters():
            if "_up_" not in name:
                parameter.copy_(torch.randint(0, 2, parameter.shape, generator=generator) * 2.0 - 1)
        layer.config = config
        change = layer(x) - before
        for name, parameter in layer.support.named_parameters():
            if "_up_" not in name:
                parameter.zero_()
    return change.pow(2).mean().sqrt().item()


@pytest.mark.parametrize("family", ["swin", "convnext", "mobilenetv2"])
def test_every_kind_of_layer_is_measured(make_model, family):
    model = make_model(family)
    supernet = Supernet(model, preset("paper", adapted_layers(model)))
    before = {name: values.clone() for name, values in scales(supernet).items()}
    calibrate(supernet, torch.randn(4, 3, TIMM[family][2], TIMM[family][2], dtype=torch.float64))
    after = scales(supernet)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert all(math.isfinite(float(values.sum())) and float(values.min()) > 0 for values in after.values())


def test_a_trainer_calibrates_an_untrained_supernet_and_leaves_a_trained_one_alone(make_vit, space, toy_split):
    supernet = Supernet(make_vit(), space)
    settings = TrainingSettings(epochs=1, batch_size=10, policy="sandwich")
    made = scales(supernet)
    Trainer(supernet, toy_split, settings).fit()
    trained = scales(supernet)
    assert any(not torch.equal(made[name], trained[name]) for name in made)
    other = toy_split.part(torch.arange(15, 30))
    Trainer(supernet, other, settings)
    assert all(torch.equal(trained[name], values) for name, values in scales(supernet).items())


def test_scales_travel_with_states_slices_and_adapters(calibrated, randomise, make_vit, space, toy_split, tmp_path):
    randomise(calibrated)
    config = space.extreme(largest=True)
    images, _ = toy_split.take(torch.arange(4))
    calibrated.set_config(config)
    expected = calibrated(images)
    loaded = Supernet(make_vit(), space)
    loaded.load_trainable_state(calibrated.trainable_state())
    loaded.set_config(config)
    assert torch.equal(loaded(images), expected)
    assert torch.equal(calibrated.cut(config)(images), expected)
    adapter = read_adapter(write_adapter(tmp_path / "a.safetensors", calibrated, config))
    assert encode(adapter.config) == encode(config)
    torch.testing.assert_close(apply_adapter(adapter, make_vit())(images), expected, rtol=1e-4, atol=1e-4)


def test_a_state_without_scales_is_taken_as_it_was_before_there_were_any(make_vit, space):
    supernet = Supernet(make_vit(), space)
    old = {name: value for name, value in supernet.trainable_state().items() if not name.endswith(".scales")}
    before = scales(supernet)
    supernet.load_trainable_state(old)
    assert all(torch.equal(before[name], values) for name, values in scales(supernet).items())


def test_the_papers_form_has_no_scales(make_vit, space, toy_split):
    supernet = Supernet(make_vit(), space, "paper")
    calibrate(supernet, toy_split.take(torch.arange(4))[0])
    assert not any(name.endswith(".scales") for name in supernet.trainable_state())


@pytest.mark.parametrize("use", ["trainer", "calibrate"])
def test_a_supernet_in_train_mode_keeps_the_statistics_of_its_frozen_batch_norms(make_model, make_inputs, toy_split, use):
    model = make_model("resnet").float()
    before = {name: value.clone() for name, value in model.named_buffers()}
    supernet = Supernet(model, preset("bitfit", adapted_layers(model))).train()
    if use == "calibrate":
        calibrate(supernet, make_inputs("resnet").float())
        assert all(module.training for module in supernet.modules())
    else:
        Trainer(supernet, toy_split, TrainingSettings(epochs=1)).fit()
    after = {name: value for name, value in supernet.backbone.named_buffers() if name in before}
    assert all(torch.equal(before[name], value) for name, value in after.items())
