"""Whole models of every family: the subnet, the network it merges to and the supernet cut down to it compute the same."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from glora_core.backbones import Inputs, adapted_layers, classifier, run
from glora_core.configs import SubnetConfig
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet

MODELS = ("vit", "swin", "convnext", "mobilenetv2", "efficientnet", "resnet", "bert", "gpt2", "llama", "gpt2 LM", "llama LM")
FORMS = ("normalised", "paper")
RANKS = (1, 3)

every_model = pytest.mark.parametrize("name", MODELS)
every_form = pytest.mark.parametrize("form", FORMS)
shared_fixtures = settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def make_supernet(make_model, randomise):
    """A factory of supernets over small models, with random support tensors in float64."""

    def make(name: str, form: str = "normalised", std: float = 0.05) -> Supernet:
        model = make_model(name)
        supernet = Supernet(model, SearchSpace.of(adapted_layers(model), RANKS), form).eval()
        return randomise(supernet, std=std)

    return make


def random_config(space: SearchSpace, seed: int) -> SubnetConfig:
    return FeasibleSampler(space, space.maximum).sample(stream(seed))


def far(first: torch.Tensor, second: torch.Tensor) -> float:
    """Largest difference by the largest value."""
    return float(((first - second).abs().max() / second.abs().max()).detach())


@torch.no_grad()
def outputs(supernet: Supernet, bare: nn.Module, config: SubnetConfig, inputs: Inputs) -> list[torch.Tensor]:
    """Of the subnet, of a bare model that loaded its merged weights, and of the supernet cut down to it."""
    supernet.set_config(config)
    bare.load_state_dict(supernet.merged_state(config), strict=True)
    return [supernet(inputs), run(bare, inputs), supernet.cut(config)(inputs)]


@every_form
@every_model
def test_the_largest_and_random_subnets_equal_what_they_merge_to_and_what_is_cut_out_of_them(
    make_supernet, make_model, make_inputs, name, form
):
    supernet, bare, inputs = make_supernet(name, form), make_model(name, seed=9), make_inputs(name)
    space = supernet.space
    before, seen = run(supernet.bare(), inputs), []
    for config in (space.extreme(largest=True), *(random_config(space, seed) for seed in range(3))):
        subnet, merged, cut = outputs(supernet, bare, config, inputs)
        assert far(merged, subnet) < 1e-9
        assert far(cut, subnet) < 1e-9
        seen.append(subnet)
    assert min(far(one, before) for one in seen) > 1e-3
    assert far(seen[1], seen[2]) > 1e-3


@every_model
def test_a_merged_state_has_the_keys_shapes_and_types_of_the_plain_architecture(make_supernet, make_model, name):
    supernet, plain = make_supernet(name), make_model(name).state_dict()
    merged = supernet.merged_state(random_config(supernet.space, 0))
    assert {key: (value.shape, value.dtype) for key, value in merged.items()} == {k: (v.shape, v.dtype) for k, v in plain.items()}


@every_model
def test_untrained_subnets_compute_what_the_backbone_computes(make_model, make_inputs, name):
    plain, inputs, model = make_model(name), make_inputs(name), make_model(name)
    supernet = Supernet(model, SearchSpace.of(adapted_layers(model), RANKS)).eval()
    head, plain_head = classifier(supernet.backbone), classifier(plain)
    if head is not None:
        plain_head.load_state_dict(head.state_dict())
    supernet.set_config(supernet.space.extreme(largest=True))
    with torch.no_grad():
        assert far(supernet(inputs), run(plain, inputs)) < 1e-9


@every_model
def test_a_supernet_gives_back_its_bare_backbone_with_its_head(make_supernet, make_model, name):
    supernet, plain = make_supernet(name), make_model(name)
    bare, head = supernet.bare(), classifier(plain)
    assert type(bare) is type(plain) and not bare.training
    trained = {id(parameter) for parameter in (head.parameters() if head is not None else ())}
    frozen = [key for key, value in plain.state_dict(keep_vars=True).items() if id(value) not in trained]
    assert [key for key in frozen if not torch.equal(bare.state_dict()[key], plain.state_dict()[key])] == []
    own_head, bare_head = classifier(supernet.backbone), classifier(bare)
    assert own_head is None or all(torch.equal(bare_head.state_dict()[key], value) for key, value in own_head.state_dict().items())


@every_model
def test_cutting_and_merging_leave_the_supernet_as_it_was(make_supernet, make_inputs, name):
    supernet = make_supernet(name)
    before = {key: value.clone() for key, value in [*supernet.state_dict().items(), *supernet.named_buffers()]}
    cut = supernet.cut(random_config(supernet.space, 1))
    for value in [*cut.state_dict().values(), *supernet.merged_state(random_config(supernet.space, 2)).values()]:
        value.zero_()
    after = dict([*supernet.state_dict().items(), *supernet.named_buffers()])
    assert [key for key, value in before.items() if not torch.equal(after[key], value)] == []


@every_form
@pytest.mark.parametrize("name", ["vit", "mobilenetv2", "gpt2"])
@shared_fixtures
@given(seed=st.integers(0, 2**32))
def test_a_supernet_cut_to_a_config_stores_exactly_the_parameters_that_the_space_counts(make_supernet, name, form, seed):
    supernet = make_supernet(name, form)
    config = random_config(supernet.space, seed)
    stored = sum(parameter.numel() for _, layer in supernet.cut(config).layers() for parameter in layer.support.parameters())
    assert stored == supernet.space.parameters(config)


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet", "resnet"])
def test_batch_norms_take_up_gained_biases_in_their_running_mean_and_nowhere_else(make_supernet, make_model, name):
    supernet, plain = make_supernet(name), make_model(name).state_dict()
    layers = supernet.space.layers
    config = SearchSpace.of(layers, kinds={t: ("vector",) if t == "E" else ("none",) for t in "ABCDE"}).extreme(largest=True)
    merged = supernet.merged_state(config)
    changed = {key for key, value in plain.items() if not torch.equal(merged[key], value) and not key.startswith(("classifier", "fc"))}
    absorbers = {f"{layer.absorber}.running_mean" for layer in layers if layer.absorber}
    assert changed == absorbers | {f"{layer.name}.bias" for layer in layers if layer.bias}
    for shape, layer in supernet.layers():
        if shape.absorber:
            mean = f"{shape.absorber}.running_mean"
            torch.testing.assert_close(merged[mean], plain[mean] - layer.support.E_vector, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["vit", "mobilenetv2", "gpt2 LM"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_merged_state_can_be_had_in_another_type(make_supernet, name, dtype):
    supernet = make_supernet(name)
    config = random_config(supernet.space, 3)
    exact, rounded = supernet.merged_state(config), supernet.merged_state(config, dtype)
    assert {value.dtype for value in rounded.values() if value.is_floating_point()} == {dtype}
    for key, value in exact.items():
        torch.testing.assert_close(rounded[key], value.to(rounded[key].dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_layers_of_a_model_without_biases_gain_them_only_if_asked(make_model, make_inputs, randomise):
    model = make_model("llama")
    space = SearchSpace.of(adapted_layers(model), new_biases=True)
    supernet = randomise(Supernet(model, space), std=0.05).eval()
    config = space.extreme(largest=True)
    gained = supernet.merged_state(config).keys() - make_model("llama").state_dict().keys()
    assert gained == {f"{layer.name}.bias" for layer in space.layers}
    supernet.set_config(config)
    with torch.no_grad():
        assert far(supernet.cut(config)(make_inputs("llama")), supernet(make_inputs("llama"))) < 1e-9
