"""Efforts: what each says, in proportion to what is set by hand, and that the library takes them."""

from dataclasses import replace
from itertools import pairwise

import pytest

from glora_core.api import Supernet, finals, search, train
from glora_core.effort import EFFORTS, Effort, effort_named
from glora_core.errors import ConfigInvalid

TINY = Effort(2, 3, 2, (1, 1), learning_rate=0.01, candidates=1, learning_rates=(0.01,))


@pytest.fixture
def tiny(monkeypatch):
    """`quick` as an effort of seconds."""
    monkeypatch.setattr("glora_core.effort.EFFORTS", EFFORTS | {"quick": TINY})


def test_efforts_grow_from_quick_to_thorough():
    order = [EFFORTS[name] for name in ("quick", "standard", "thorough")]
    for less, more in pairwise(order):
        assert less.epochs < more.epochs
        assert less.population * less.generations < more.population * more.generations
        assert sum(less.finals) < sum(more.finals)
        assert sum(less.scratch_epochs) < sum(more.scratch_epochs)


@pytest.mark.parametrize("name", EFFORTS)
def test_an_effort_of_its_own_training_is_itself(name):
    effort = EFFORTS[name]
    assert effort.of() == effort.of(effort.epochs, effort.learning_rate) == effort


def test_finals_keep_their_proportion_to_a_training_set_by_hand():
    effort = Effort(40, 1, 1, (10, 20), learning_rate=0.003, learning_rates=(0.001, 0.003), scratch_epochs=(10, 30))
    shorter = effort.of(epochs=20, learning_rate=0.01)
    assert (shorter.finals, shorter.scratch_epochs, shorter.learning_rates) == ((5, 10), (5, 15), (0.0033, 0.01))
    assert effort.of(epochs=1).finals == (1, 1)


def test_a_longer_supernet_does_not_lengthen_the_finals():
    standard = EFFORTS["standard"]
    assert standard.of(epochs=10_000) == replace(standard, epochs=10_000)


def test_an_unknown_effort_is_refused_with_those_that_are_accepted():
    with pytest.raises(ConfigInvalid, match="accepted: quick, standard, thorough"):
        effort_named("heroic")


def test_the_library_takes_an_effort_and_what_is_given_overrides_it(tiny, make_vit, space, toy_split):
    supernet = Supernet(make_vit(), space)
    assert len(train(supernet, toy_split, effort="quick", augment=())) == 2
    assert len(train(supernet, toy_split, effort="quick", epochs=1, augment=())) == 1
    result = search(supernet, toy_split, supernet.space.maximum, effort="quick")
    assert len(result.progress) == 2
    found = finals(supernet, toy_split, toy_split, result, supernet.space.maximum, effort="quick", augment=())
    assert [f.leg.rung for f in sorted(found, key=lambda f: f.leg.rung)] == [0] * 5 + [1, 2]
