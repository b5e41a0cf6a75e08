"""The cache of evaluations: one for each supernet, config, split, protocol and metric, kept for ever as first stored."""

import pytest
from sqlalchemy.exc import IntegrityError

from services.protocol import PROTOCOL
from services.store import search_state
from services.store.database import Database
from services.store.models import Evaluation
from services.store.search_state import Fitness
from tests.services.store.concurrency import Background
from tests.services.store.conftest import Connect
from tests.services.store.rows import add_supernet, contents, evaluation

OTHERWISE = [
    pytest.param({"supernet_key": "other"}, id="another supernet"),
    pytest.param({"split": "test"}, id="another split"),
    pytest.param({"protocol": "accuracy/float16"}, id="another protocol"),
    pytest.param({"metric": "MulticlassF1Score"}, id="another metric"),
]


@pytest.fixture(autouse=True)
def supernets(database: Database) -> None:
    """Two trained supernets."""
    with database.write() as session:
        add_supernet(session)
        add_supernet(session, "other")


def test_second_evaluation_of_the_same_is_refused_by_the_schema(database: Database) -> None:
    _add(database, evaluation("a"))
    before = contents(database)

    with pytest.raises(IntegrityError), database.write() as session:
        session.add(evaluation("a", 0.9))

    assert contents(database) == before


@pytest.mark.parametrize("otherwise", OTHERWISE)
def test_same_config_measured_otherwise_is_another_evaluation(database: Database, otherwise: dict[str, str]) -> None:
    _add(database, evaluation("a", 0.5))

    added = _add(database, evaluation("a", 0.9, **otherwise))

    assert [row.accuracy for row in added] == [0.9]
    assert _known(database, "a")["a"].accuracy == 0.5


def test_first_evaluation_is_kept_and_only_new_ones_are_returned(database: Database) -> None:
    _add(database, evaluation("a", 0.5), evaluation("b", 0.5))

    added = _add(database, evaluation("b", 0.9), evaluation("c", 0.9))

    assert [row.config_hash for row in added] == ["c"]
    assert {key: row.accuracy for key, row in _known(database, "a", "b", "c").items()} == {"a": 0.5, "b": 0.5, "c": 0.9}


def test_adding_nothing_adds_nothing(database: Database) -> None:
    before = contents(database)

    assert _add(database) == []
    assert contents(database) == before


def test_evaluation_that_another_job_is_just_storing_is_left_as_it_is(database: Database, connect: Connect) -> None:
    other = connect()

    with database.write() as session:
        search_state.add_evaluations(session, [evaluation("a", 0.5)])
        second = Background(lambda: _add(other, evaluation("a", 0.9), evaluation("b", 0.9)))
        second.give_way()

    assert [row.config_hash for row in second.result()] == ["b"]
    assert {key: row.accuracy for key, row in _known(database, "a", "b").items()} == {"a": 0.5, "b": 0.9}


def test_known_answers_for_more_configs_than_one_query_holds(database: Database) -> None:
    stored = [f"{number:04}" for number in range(1203)]
    _add(database, *(evaluation(config_hash) for config_hash in stored))
    asked = [*stored, *(f"missing {number}" for number in range(600))]

    found = _known(database, *asked)

    assert sorted(found) == stored
    assert all(row.config_hash == config_hash for config_hash, row in found.items())


def test_known_answers_once_for_a_config_asked_for_twice(database: Database) -> None:
    _add(database, evaluation("a"))

    assert list(_known(database, "a", "a")) == ["a"]


def test_known_answers_nothing_when_asked_nothing(database: Database) -> None:
    _add(database, evaluation("a"))

    assert _known(database) == {}


@pytest.mark.parametrize("otherwise", OTHERWISE)
def test_evaluation_measured_otherwise_is_not_known(database: Database, otherwise: dict[str, str]) -> None:
    _add(database, evaluation("a", **otherwise))

    assert _known(database, "a") == {}


def test_fitness_comes_back_to_the_last_bit(database: Database) -> None:
    accuracy = 0.1 + 0.2

    _add(database, evaluation("a", accuracy))

    assert search_state.fitness_of(_known(database, "a")["a"]) == Fitness(accuracy, 1.0, 10, accuracy / 2, accuracy)


def _add(database: Database, *rows: Evaluation) -> list[Evaluation]:
    with database.write() as session:
        return search_state.add_evaluations(session, rows)


def _known(database: Database, *hashes: str) -> dict[str, Evaluation]:
    with database.read() as session:
        return search_state.known(session, "supernet", "val", PROTOCOL, "accuracy", hashes)
