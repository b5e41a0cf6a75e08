"""The knobs of a search: the paper's by default, refused where they make no sense."""

import json
import math

import pytest

from glora_core.errors import ConfigInvalid
from glora_core.search import STRATEGIES, STRATEGY_NAMES, SearchSettings


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"strategy": "annealing"}, "strategy 'annealing'.*evolution, random, nsga2"),
        ({"population": 0}, "population is 0.*at least 1"),
        ({"generations": 0}, "generations is 0.*at least 1"),
        ({"parents": 0}, "parents is 0.*at least 1"),
        ({"tournament": 0}, "tournament is 0.*at least 1"),
        ({"alive": -3}, "alive is -3.*at least 1"),
        ({"pool": 0}, "pool is 0.*at least 1"),
        ({"population": 2.5}, "population is 2.5.*integers of at least 1"),
        ({"population": True}, "population is True.*integers of at least 1"),
        ({"generations": "5"}, "generations is '5'.*integers of at least 1"),
        ({"crossover": -1}, "crossover is -1.*at least 0"),
        ({"mutation": -1}, "mutation is -1.*at least 0"),
        ({"mutation": 1.0}, "mutation is 1.0.*integers of at least 0"),
        ({"mutation_probability": math.nan}, "mutation_probability nan.*between 0 and 1"),
        ({"population": 10, "crossover": 6, "mutation": 5}, "crossover 6 and mutation 5.*population of 10"),
        ({"mutation_probability": -0.1}, "mutation_probability -0.1.*between 0 and 1"),
        ({"metric": "f1"}, "metric 'f1' is unknown; did you mean MulticlassF1Score"),
        ({"mutation_probability": 1.1}, "mutation_probability 1.1.*between 0 and 1"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused_by_name(arguments, named):
    with pytest.raises(ConfigInvalid, match=named):
        SearchSettings(**arguments)


@pytest.mark.parametrize(
    ("arguments", "children"),
    [({}, (25, 25)), ({"population": 7}, (3, 3)), ({"crossover": 40}, (40, 10)), ({"mutation": 0}, (25, 0)), ({"mutation": 45}, (5, 45))],
    ids=str,
)
def test_children_that_are_not_given_are_half_of_the_population_or_what_is_left(arguments, children):
    assert SearchSettings(**arguments).children == children


def test_every_strategy_that_settings_accept_is_registered():
    assert tuple(STRATEGIES) == STRATEGY_NAMES


def test_settings_survive_json():
    settings = SearchSettings(strategy="nsga2", crossover=3)
    assert SearchSettings(**json.loads(json.dumps(settings.to_dict()))) == settings
