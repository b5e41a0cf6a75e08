"""What has won trained once more on train and val together, with Ray left out: in which steps, from what, and once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from glora_core.data.readers import ImageReader
from glora_core.errors import Diverged
from glora_core.evaluation import Score
from services.cluster.rung import Task, Trained
from services.scheduler import retraining, turns
from services.scheduler.finals import Outcome
from services.scheduler.retraining import retrain
from services.scheduler.soups import Soup
from services.store import claims, search_state
from services.store.database import Database
from tests.services.scheduler.test_finals import SOUP, Cluster, Killed, cluster, play, told  # noqa: F401 - fixtures


@pytest.fixture
def again(play: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:  # noqa: F811
    """Plays finals and retrains what has won; `again.steps` are the tasks of each step."""
    steps: list[dict[str, Task]] = []

    def train_rung(workload: Any, tasks: dict[str, Task], *, on_done: Callable[..., None], **where: Any) -> None:
        assert workload.train == "train+val"
        steps.append(tasks)
        for key, task in tasks.items():
            if cluster.survives == 0:
                raise Killed
            cluster.survives -= 1
            found = Trained({"numbers": torch.full((2,), task.settings.learning_rate)}, [], cluster.reached(task.settings))
            on_done(key, Diverged("training loss became nan") if task.settings.learning_rate >= cluster.diverging else found)

    monkeypatch.setattr(retraining, "train_rung", train_rung)
    monkeypatch.setattr(ImageReader, "load", lambda reader, data, split: SplitName(split))
    monkeypatch.setattr(retraining.ray, "put", lambda workload: workload)

    def run(asked: dict[str, Any] = SOUP, train_on_val: bool = True, **changes: Any) -> Outcome:
        def also(context: Any, prepared: Any, outcome: Outcome, key: str) -> Outcome:
            context.request = context.request.model_copy(update={"train_on_val": train_on_val})
            context.__dict__["data"] = None
            return retrain(context, prepared, outcome, key)

        return play(asked, then=also, **changes)

    run.steps = steps  # type: ignore[attr-defined]
    return run


class SplitName(str):
    """In the place of a split: its name, of so many examples."""

    def __len__(self) -> int:
        return 30


def test_the_winner_is_trained_again_from_its_slice_in_the_way_it_was(again: Any) -> None:
    outcome = again(SOUP | {"learning_rates": [0.2], "epochs": [3]})

    winner, found = outcome.winner, outcome.retrained
    ((key, task),) = again.steps[0].items()
    assert len(again.steps) == 1
    assert (task.settings.epochs, task.settings.learning_rate, task.settings.start) == (3, 0.2, "s")
    assert set(task.start) == {"slice"}
    assert found == replace(winner, supernet_key=key, settings=task.settings)
    assert key != winner.supernet_key


def test_what_came_out_of_a_second_rung_is_trained_again_through_both(again: Any, cluster: Cluster) -> None:  # noqa: F811
    cluster.soup = (0, 1)

    outcome = again(SOUP | {"learning_rates": [0.2]}, examples=10)

    assert {member.leg.rung for member in outcome.soup.members} == {1, 2}
    assert [[task.settings.epochs for task in step.values()] for step in again.steps] == [[1], [2]]
    (first,), (second,) = (step.values() for step in again.steps)
    assert (set(first.start), set(second.start)) == ({"slice"}, {"numbers"})
    assert second.settings.start == next(iter(again.steps[0]))
    assert {member.supernet_key for member in outcome.retrained.members} == {next(iter(step)) for step in again.steps}


def test_every_member_of_a_soup_is_trained_again(again: Any, cluster: Cluster) -> None:  # noqa: F811
    cluster.soup = (0, 1)
    outcome = again(examples=10)

    assert isinstance(outcome.soup, Soup) and isinstance(outcome.retrained, Soup)
    assert [(m.source, m.leg, m.fitness) for m in outcome.retrained.members] == [(m.source, m.leg, m.fitness) for m in outcome.soup.members]
    assert {m.supernet_key for m in outcome.retrained.members}.isdisjoint(m.supernet_key for m in outcome.soup.members)
    assert outcome.retrained.digest != outcome.soup.digest
    assert [len(step) for step in again.steps] == [2, 1], "one of them came out of the second rung"


@pytest.mark.parametrize("survives", [0, 1])
def test_a_runner_killed_in_it_trains_nothing_twice(survives: int, again: Any, cluster: Cluster, database: Database) -> None:  # noqa: F811
    cluster.soup = (0, 1)
    again(examples=10, train_on_val=False)
    cluster.survives = survives
    with pytest.raises(Killed):
        again(examples=10)
    cluster.survives = 1000

    outcome = again(examples=10)

    assert cluster.survives == 1000 - 3 + survives
    assert len(told(database, "retrained")) == 3
    assert outcome == again(examples=10)
    assert cluster.survives == 1000 - 3 + survives
    with database.read() as session:
        row = search_state.supernet(session, outcome.retrained.members[0].supernet_key)
        assert row is not None and row.recipe["split"] == "train+val"


def test_nothing_is_trained_again_where_none_is_asked_for_or_nothing_was_trained_alone(again: Any) -> None:
    assert again(train_on_val=False).retrained is None
    assert again({"mode": "off"}).retrained is None
    assert again.steps == []


def test_what_came_out_of_a_last_rung_that_started_afresh_is_trained_again_for_that_one_alone(
    again: Any,
    cluster: Cluster,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "reached", lambda settings: Score(settings.epochs / 10, 0.1, 10, 0.5, settings.epochs / 10))

    outcome = again(SOUP | {"learning_rates": [0.2], "afresh": True}, examples=10)

    assert outcome.winner.leg.rung == 2
    assert [[(task.settings.epochs, task.start) for task in step.values()] for step in again.steps] == [[(2, None)]]


def test_one_that_diverges_ends_the_job(again: Any, cluster: Cluster) -> None:  # noqa: F811
    again(train_on_val=False)
    cluster.diverging = 0.0
    with pytest.raises(Diverged, match="trained again on train and val together"):
        again()


def test_a_known_method_that_was_trained_as_a_baseline_is_trained_again_for_as_long(again: Any) -> None:
    asked = {"candidates": 1, "learning_rates": [0.2], "epochs": [1], "scratch_epochs": [1, 2, 3], "standing": 0}

    outcome = again(asked, baselines="trained")

    assert (outcome.winner.leg.trial.sliced, outcome.winner.leg.trained) == (False, 6)
    assert [[task.settings.epochs for task in step.values()] for step in again.steps] == [[6]]


def test_what_another_job_is_just_retraining_is_waited_for(again: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    refused, slept, take = list[set[str]](), list[float](), claims.take

    def held_once(session: Any, lease: Any, keys: Any) -> set[str]:
        refused.append(set(keys))
        return set() if len(refused) == 1 else take(session, lease, keys)

    def while_held(*arguments: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(claims, "take", held_once)
            patch.setattr(turns.time, "sleep", slept.append)
            turns.trained_once(*arguments)

    monkeypatch.setattr(retraining, "trained_once", while_held)

    outcome = again(SOUP | {"learning_rates": [0.2], "epochs": [3]})

    assert refused == [{outcome.retrained.supernet_key}] * 2
    assert len(slept) == len(again.steps) == 1
