"""Training on texts: classes, and the next token as label where one is asked for."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import transformers
from torch.nn import functional as F

from glora_core.backbones import adapted_layers, run
from glora_core.data.split import answers
from glora_core.data.text import TextSplit
from glora_core.errors import ConfigInvalid
from glora_core.evaluation import SubnetScorer
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import Probe, Progress, Trainer, TrainingSettings
from tests.glora_core.two_processes import in_two_processes


def fit(trainer: Trainer) -> list[Progress]:
    progress: list[Progress] = []
    trainer.fit(progress.append)
    return progress


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in first.keys() | second.keys() if not torch.equal(first[name], second[name])]


def text_split(classes: bool) -> TextSplit:
    """Texts of one repeated word and padding; their class is the word, or every next token is it."""
    words, lengths = torch.arange(24) % 3, torch.arange(24) % 4 + 2
    mask = (torch.arange(6) < lengths[:, None]).long()
    ids = (words[:, None] + 5) * mask
    following = torch.cat([ids[:, 1:], torch.zeros(24, 1, dtype=torch.long)], 1)
    return TextSplit(ids, mask, words if classes else following.masked_fill(following == 0, -100))


@pytest.fixture
def make_text_trainer(make_model) -> Callable[..., Trainer]:
    """A factory of trainers over small transformers models, by a name of `make_model`."""

    def make(name: str, split: TextSplit | None = None, form: str = "normalised", **changes: object) -> Trainer:
        model = make_model(name)
        supernet = Supernet(model, SearchSpace.of(adapted_layers(model), (1, 3)), form)
        settings = {"epochs": 6, "batch_size": 8, "learning_rate": 2e-2, "policy": "random", "entanglement": form} | changes
        return Trainer(supernet, split or text_split("LM" not in name), TrainingSettings(**settings))

    return make


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "llama", "gpt2 LM", "llama LM"])
def test_the_padding_that_a_batch_leaves_out_decides_nothing(make_model, name):
    split = text_split(classes="LM" not in name)
    rows, model = torch.arange(24)[split.attention_mask.sum(1) < 4], make_model(name).eval()
    inputs, labels = split.take(rows)
    assert inputs["input_ids"].shape[1] == 3
    padded = {"input_ids": split.input_ids[rows], "attention_mask": split.attention_mask[rows]}
    with torch.no_grad():
        short, whole = answers(run(model, inputs), labels), answers(run(model, padded), split.labels[rows])
    assert torch.equal(short[1], whole[1])
    torch.testing.assert_close(short[0], whole[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["random", "sandwich"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "gpt2 LM", "llama LM"])
def test_loss_falls_on_learnable_texts(make_text_trainer, name, policy):
    losses = [p.loss for p in fit(make_text_trainer(name, policy=policy))]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", ["bert", "gpt2 LM"])
def test_subnets_are_probed_on_texts(make_text_trainer, name):
    trainer = make_text_trainer(name)
    trainer.probe = Probe.of(trainer.supernet, trainer.split, 6)
    assert all(0 <= accuracy <= 1 for progress in fit(trainer) for accuracy in progress.probe.values())
    assert trainer.probe.subnets


def test_texts_are_not_augmented(make_text_trainer):
    with pytest.raises(ConfigInvalid, match="augment crop changes images"):
        fit(make_text_trainer("bert", augment=("crop",)))


@pytest.mark.parametrize("form", ["normalised", "paper"])
def test_loss_of_a_language_model_falls_in_both_forms(make_text_trainer, form):
    losses = [p.loss for p in fit(make_text_trainer("gpt2 LM", form=form, learning_rate=1e-2))]
    assert losses[-1] < 0.8 * losses[0]


def test_loss_of_a_language_model_is_the_mean_over_the_tokens_that_are_asked_for(make_text_trainer):
    trainer = make_text_trainer("gpt2 LM", epochs=1, batch_size=24, learning_rate=1e-12, weight_decay=0.0)
    config = trainer.supernet.space.extreme(largest=True)
    trainer.supernet.set_config(config)
    inputs, labels = trainer.split.take(torch.arange(24))
    with torch.no_grad():
        logits = trainer.supernet(inputs)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100).item()
    assert fit(trainer)[0].loss == pytest.approx(expected, rel=1e-6)
    actual = SubnetScorer(trainer.supernet).score(config, trainer.split, 5)
    assert actual.loss == pytest.approx(expected, rel=1e-6)
    assert actual.examples == int((labels >= 0).sum())


def test_what_stands_where_nothing_is_asked_for_changes_nothing(make_text_trainer):
    split = text_split(classes=False)
    other = TextSplit(split.input_ids, split.attention_mask, split.labels.masked_fill(split.labels < 0, -1))
    first, second = make_text_trainer("gpt2 LM", split), make_text_trainer("gpt2 LM", other)
    assert [p.loss for p in fit(first)] == [p.loss for p in fit(second)]
    assert differing(first.supernet.trainable_state(), second.supernet.trainable_state()) == []


def test_a_batch_that_asks_for_nothing_trains_nothing(make_text_trainer):
    split = text_split(classes=False)
    labels = split.labels.clone()
    labels[::2] = -100
    trainer = make_text_trainer("gpt2 LM", TextSplit(split.input_ids, split.attention_mask, labels), batch_size=1, epochs=1)
    assert fit(trainer)[0].loss > 0
    steps = {int(found["step"]) for found in trainer.state()["optimizer"]["state"].values()}
    assert max(steps) <= 12


def train_texts_in_process(rank: int, world: int, folder: Path) -> None:
    """One process of a group that trains a language model on texts of uneven length, of which some ask for nothing."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=1, n_head=2, initializer_range=0.3)
    backbone = transformers.GPT2LMHeadModel(config).double().eval()
    split = text_split(classes=False)
    split.labels[::3] = -100
    settings = TrainingSettings(epochs=3, batch_size=5, learning_rate=1e-2, policy="random", clip_norm=0.5)
    trainer = Trainer(Supernet(backbone, SearchSpace(adapted_layers(backbone), ranks=(1, 3))), split, settings)
    losses = [progress.loss for progress in fit(trainer)]
    torch.save({"trainable": trainer.supernet.trainable_state(), "losses": losses}, folder / f"{rank}.pt")
    if world > 1:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_a_language_model_as_one_process_does(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    train_texts_in_process(0, 1, alone)
    in_two_processes(train_texts_in_process, together)
    expected, *actual = (torch.load(path) for path in (alone / "0.pt", together / "0.pt", together / "1.pt"))
    assert differing(actual[0]["trainable"], actual[1]["trainable"]) == []
    torch.testing.assert_close(actual[0]["trainable"], expected["trainable"], rtol=1e-6, atol=1e-8)
    assert actual[0]["losses"] == pytest.approx(expected["losses"], rel=1e-8)
