"""Scoring subnets: the right numbers, at any batch size, whatever was scored before."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from glora_core.backbones import adapted_layers
from glora_core.configs import SubnetConfig, decode
from glora_core.data.images import ImageSplit
from glora_core.data.text import TextSplit
from glora_core.errors import ConfigInvalid
from glora_core.evaluation import Score, SubnetScorer, give_biases, score
from glora_core.sampling import FeasibleSampler, stream
from glora_core.space import LayerShape, SearchSpace
from glora_core.supernet import Supernet


def random_configs(space: SearchSpace, count: int) -> list[SubnetConfig]:
    sampler, rng = FeasibleSampler(space, space.maximum), stream(4)
    return [sampler.sample(rng) for _ in range(count)]


class Stub(nn.Module):
    """Logits that depend on the image's mean colour only."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) * 5


@pytest.fixture
def biasless(make_vit: Callable[..., nn.Module], randomise: Callable[..., Supernet]) -> Supernet:
    """A trained supernet over a backbone whose qkv layers have no bias."""
    layers = [LayerShape(f"blocks.{block}.attn.qkv", 32, 96, bias=False) for block in (0, 1)]
    space = SearchSpace.of(layers, new_biases=True)
    return randomise(Supernet(make_vit(qkv_bias=False), space)).eval()


def test_score_among_some_labels_leaves_the_other_logits_out():
    pixels = torch.tensor([[200, 250, 100], [100, 250, 200], [90, 250, 80]], dtype=torch.uint8)[:, :, None, None].expand(3, 3, 8, 8)
    split = ImageSplit(pixels, torch.tensor([0, 2, 2]), (0.5,) * 3, (0.5,) * 3)
    logits = Stub()(split.take(torch.arange(3))[0])[:, [0, 2]].double()
    assert score(Stub(), split, 2).accuracy == 0
    actual = score(Stub(), split, 2, among=(0, 2))
    assert (actual.accuracy, actual.examples) == (2 / 3, 3)
    assert actual.loss == pytest.approx(float(F.cross_entropy(logits, torch.tensor([0, 1, 1]))))


@pytest.mark.parametrize(
    ("metric", "expected"), [("macro-accuracy", 0.75), ("MulticlassF1Score", 2 / 3), ("MulticlassHammingDistance", -0.25)]
)
def test_macro_accuracy_and_the_metric_among_some_labels_are_over_their_classes(metric: str, expected: float):
    pixels = torch.tensor([[200, 250, 100], [100, 250, 200], [90, 250, 80]], dtype=torch.uint8)[:, :, None, None].expand(3, 3, 8, 8)
    split = ImageSplit(pixels, torch.tensor([0, 2, 2]), (0.5,) * 3, (0.5,) * 3)
    actual = score(Stub(), split, 2, among=(0, 2), metric=metric)
    assert (actual.macro_accuracy, actual.fitness) == (0.75, pytest.approx(expected))


def test_score_is_the_share_of_right_answers_and_the_mean_cross_entropy(toy_split):
    images, labels = toy_split.take(torch.arange(30))
    wrong = ImageSplit(toy_split.pixels, torch.where(torch.arange(30) < 6, (labels + 1) % 3, labels), toy_split.mean, toy_split.std)
    actual = score(Stub(), wrong, 7)
    assert actual.accuracy == 24 / 30
    assert actual.loss == pytest.approx(F.cross_entropy(Stub()(images).double(), wrong.labels).item(), rel=1e-6)
    assert actual.examples == 30


@pytest.mark.parametrize("batch_size", [1, 7, 30, 1000])
def test_score_hardly_depends_on_the_batch_size(toy_split, make_vit, batch_size):
    expected, actual = (score(make_vit(), toy_split, size) for size in (10, batch_size))
    assert actual.accuracy == expected.accuracy
    assert actual.loss == pytest.approx(expected.loss, rel=1e-5)


def test_a_score_does_not_depend_on_what_was_scored_before(trained, make_vit, space, toy_split):
    first, *others = random_configs(space, 6)
    scorer = SubnetScorer(trained, make_vit())
    fresh = SubnetScorer(trained, make_vit()).score(first, toy_split, 10)
    assert scorer.score(first, toy_split, 10) == fresh
    for other in others:
        scorer.score(other, toy_split, 10)
    assert scorer.score(first, toy_split, 10) == fresh


@pytest.mark.parametrize("index", range(4))
def test_a_score_equals_that_of_a_freshly_merged_model(trained, make_vit, space, toy_split, index):
    scorer, configs = SubnetScorer(trained, make_vit(seed=8)), random_configs(space, 4)
    scores = [scorer.score(config, toy_split, 10) for config in configs]
    fresh = make_vit(seed=9)
    fresh.load_state_dict(trained.merged_state(configs[index]))
    assert scores[index] == score(fresh, toy_split, 10)
    assert len(set(scores)) == 4


def test_only_layers_whose_config_changed_are_merged_again(trained, make_vit, space, monkeypatch):
    scorer, merged = SubnetScorer(trained, make_vit()), []
    merge = trained.merged_layer
    monkeypatch.setattr(trained, "merged_layer", lambda index, config: (merged.append(index), merge(index, config))[1])
    config = list(random_configs(space, 1)[0])
    scorer.load(tuple(config))
    config[2] = decode("NNNNN" if config[2].code != "NNNNN" else "VVVVV")[0]
    scorer.load(tuple(config))
    assert merged == [*range(8), 2]


def test_scoring_leaves_the_supernet_as_it_was(trained, make_vit, space, toy_split):
    before = {name: value.clone() for name, value in (trained.state_dict() | dict(trained.named_buffers())).items()}
    scorer = SubnetScorer(trained, make_vit())
    for config in random_configs(space, 3):
        scorer.score(config, toy_split, 10)
    after = trained.state_dict() | dict(trained.named_buffers())
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_layer_that_gained_a_bias_loses_it_again(biasless, make_vit, toy_split):
    without, gaining = decode("VNNNN-L4NNNN"), decode("VNVNV-L4NNNV")
    scorer = SubnetScorer(biasless, make_vit(qkv_bias=False))
    fresh = SubnetScorer(biasless, make_vit(qkv_bias=False)).score(without, toy_split, 10)
    gained = scorer.score(gaining, toy_split, 10)
    assert gained != fresh
    assert scorer.score(without, toy_split, 10) == fresh


@pytest.mark.parametrize("text", ["NNVNN-NNNNN", "NNNNS-VVL4NV", "NNNNN-NNNNV"])
def test_a_gained_bias_takes_part_in_the_score(biasless, make_vit, toy_split, text):
    scorer, plain = SubnetScorer(biasless, make_vit(qkv_bias=False)), make_vit(qkv_bias=False)
    state = biasless.merged_state(decode(text))
    give_biases(plain, state)
    missing, unexpected = plain.load_state_dict(state, strict=False)
    assert (missing, unexpected) == ([], [])
    assert scorer.score(decode(text), toy_split, 10).loss == pytest.approx(score(plain, toy_split, 10).loss, rel=1e-6)


@pytest.mark.parametrize("name", ["vit", "mobilenetv2", "efficientnet", "bert", "gpt2 LM"])
def test_whatever_was_loaded_before_the_plain_network_holds_exactly_the_merged_state(make_model, randomise, name):
    model = make_model(name)
    supernet = randomise(Supernet(model, SearchSpace.of(adapted_layers(model), (1, 3)))).eval()
    scorer = SubnetScorer(supernet)
    for config in (*random_configs(supernet.space, 3), supernet.space.extreme(largest=False)):
        state, expected = scorer.load(config).state_dict(), supernet.merged_state(config)
        assert state.keys() == expected.keys()
        assert [key for key in expected if not torch.equal(state[key], expected[key])] == []


def test_a_scorer_makes_its_own_plain_network_where_none_is_given(trained, make_vit, space, toy_split):
    (config,) = random_configs(space, 1)
    assert SubnetScorer(trained).score(config, toy_split, 10) == SubnetScorer(trained, make_vit()).score(config, toy_split, 10)


@pytest.mark.parametrize("name", ["bert", "gpt2 LM"])
def test_texts_are_scored_by_the_answers_that_are_asked_for(make_model, make_inputs, randomise, name):
    model, inputs = make_model(name), make_inputs(name)
    supernet = randomise(Supernet(model, SearchSpace.of(adapted_layers(model)))).eval()
    labels = (
        torch.tensor([0, 2, 1]) if name == "bert" else torch.tensor([[7, 8, 9, 7, 8, -100], [7, -100, 8, -100, -100, -100], [-100] * 6])
    )
    split = TextSplit(**inputs, labels=labels)
    (config,) = random_configs(supernet.space, 1)
    supernet.set_config(config)
    with torch.no_grad():
        logits = supernet(inputs).flatten(0, -2)
    asked = labels.flatten() >= 0
    actual = SubnetScorer(supernet).score(config, split, 2)
    assert actual.examples == int(asked.sum())
    assert actual.loss == pytest.approx(F.cross_entropy(logits[asked], labels.flatten()[asked]).item(), rel=1e-9)
    right = (logits.argmax(-1) == labels.flatten())[asked].double()
    assert actual.accuracy == actual.fitness == pytest.approx(float(right.mean()))
    recalls = [right[labels.flatten()[asked] == label].mean() for label in labels[labels >= 0].unique()]
    assert actual.macro_accuracy == pytest.approx(float(sum(recalls) / len(recalls)))


def test_biases_are_given_only_where_the_state_has_one_and_the_model_has_none():
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 4, bias=False), nn.Linear(4, 1))
    kept = model[2].bias
    give_biases(model, {"0.bias": torch.ones(3), "2.bias": torch.ones(1)})
    assert torch.equal(model[0].bias, torch.zeros(3))
    assert model[1].bias is None
    assert model[2].bias is kept


def test_two_equal_scores_are_equal():
    assert Score(0.5, 1.0, 10, 0.5, 0.5) == Score(0.5, 1.0, 10, 0.5, 0.5)


@pytest.mark.parametrize("size", [0, -1, 2.5, True], ids=str)
def test_a_batch_of_less_than_one_is_refused(make_vit, toy_split, size):
    with pytest.raises(ConfigInvalid, match=r"batch_size is .*integers of at least 1"):
        score(make_vit(), toy_split, size)


def test_an_example_with_a_logit_that_is_not_a_number_is_answered_wrongly(make_vit, toy_split):
    model = make_vit()
    model.head.weight.data.fill_(torch.nan)
    found = score(model, toy_split, 7)
    assert (found.accuracy, found.macro_accuracy, found.fitness) == (0.0, 0.0, 0.0)


def test_a_score_in_bfloat16_is_that_of_mixed_precision_and_near_that_of_float32(trained, toy_split):
    config = trained.space.extreme(largest=True)
    exact, mixed = (SubnetScorer(trained, precision=precision).score(config, toy_split, 10) for precision in ("float32", "bfloat16"))
    network = SubnetScorer(trained).load(config)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = torch.cat([network(images) for images, _ in toy_split.batches(10)])
    assert mixed.loss == pytest.approx(F.cross_entropy(logits.double(), toy_split.labels).item(), rel=1e-12)
    assert mixed.loss != exact.loss
    assert mixed.loss == pytest.approx(exact.loss, rel=0.02)


def test_scores_in_bfloat16_do_not_depend_on_what_was_scored_before(trained, toy_split):
    configs = random_configs(trained.space, 3)
    scorer = SubnetScorer(trained, precision="bfloat16")
    scores = [scorer.score(config, toy_split, 10) for config in (*configs, *configs)]
    assert scores[:3] == scores[3:]
    assert len(set(scores)) == 3


def test_an_unknown_precision_is_refused(trained, toy_split):
    for refused in (lambda: SubnetScorer(trained, precision="float16"), lambda: score(Stub(), toy_split, 10, precision="half")):
        with pytest.raises(ConfigInvalid, match="accepted: float32, bfloat16"):
            refused()
