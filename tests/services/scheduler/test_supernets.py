"""Which supernet a job trains, or finds: what it is known by, and when a job keeps one that it would not train like that any more."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from services.scheduler import supernets
from services.scheduler.context import RunContext
from services.scheduler.supernets import InputsChanged, key_of, recipe_of, supernet_settings, train_or_find
from services.store import claims, jobs, search_state
from services.store.database import Database
from services.store.lineage import Origin
from services.store.models import Supernet
from tests.services.sharing.conftest import context_of
from tests.services.store.rows import add_job, add_running_job, add_supernet, change_job, claim, generation, job_of

WEIGHTS = "w" * 64


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the supernets that were trained, of which only the rows are stored."""
    keys: list[str] = []

    def train(context: RunContext, workload: Any, settings: Any, recipe: dict[str, Any], key: str) -> dict[str, Any]:
        keys.append(key)
        with context.fenced() as (session, _):
            add_supernet(session, key)
            session.get_one(Supernet, key).recipe = recipe
            claims.drop(session, context.lease, [key])
        return {}

    def stored(context: RunContext, key: str) -> dict[str, Any] | None:
        with context.database.read() as session:
            return None if search_state.supernet(session, key) is None else {}

    monkeypatch.setattr(supernets, "_train", train)
    monkeypatch.setattr(supernets, "stored_state", stored)
    return keys


@pytest.fixture
def context(database: Database) -> Callable[..., RunContext]:
    """A runner's context, of a new job or of one that it goes on with."""

    def made(lease: jobs.Lease | None = None, patience: int | None = None, budget: int = 700) -> RunContext:
        found = context_of(database, lease or add_running_job(database))
        found.request = found.request.model_copy(
            update={"budget": budget, "training": found.request.training.model_copy(update={"patience": patience})}
        )
        found.info, found.data_facts = SimpleNamespace(architecture="toy", arguments={}), {"fingerprint": "f"}
        found.__dict__["reader"] = SimpleNamespace(recipe=dict, libraries=())
        return found

    return made


def search_begins(context: RunContext) -> None:
    with context.fenced() as (session, job):
        search_state.commit_generation(session, job, generation(job.id, 0), [])


def upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernets, "versions", lambda *others: {"glora": "99"})


def key(context: RunContext) -> str:
    return key_of(recipe_of(context, WEIGHTS, supernet_settings(context)))


def test_search_that_has_begun_keeps_its_supernet_after_an_upgrade(
    context: Callable[..., RunContext], trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    searching, training = context(), context()
    first, _ = train_or_find(searching, None, WEIGHTS)
    search_begins(searching)
    upgrade(monkeypatch)
    with searching.fenced() as (session, _):  # by software that had one setting less
        row = session.get_one(Supernet, first)
        row.recipe = row.recipe | {"training": {name: value for name, value in row.recipe["training"].items() if name != "cycles"}}

    assert train_or_find(searching, None, WEIGHTS)[0] == first
    assert trained == [first]
    other, _ = train_or_find(training, None, WEIGHTS)
    assert trained == [first, other]


@pytest.mark.parametrize("gone", [False, True])
def test_search_over_a_supernet_that_its_inputs_no_longer_give_is_given_up_before_anything_is_trained(
    gone: bool, context: Callable[..., RunContext], trained: list[str], database: Database
) -> None:
    searching = context()
    train_or_find(searching, None, WEIGHTS)
    search_begins(searching)
    if gone:
        change_job(database, searching.lease.job_id, supernet_key="gone")

    with pytest.raises(InputsChanged, match="not stored any more" if gone else "weights changed"):
        train_or_find(searching, None, WEIGHTS if gone else "v" * 64)

    assert len(trained) == 1


def test_supernet_whose_training_probes_may_end_is_known_by_the_budget_of_these(context: Callable[..., RunContext]) -> None:
    assert key(context(budget=600)) == key(context(budget=700))
    assert key(context(patience=2, budget=600)) != key(context(patience=2, budget=700))


def test_fork_with_another_budget_keeps_the_supernet_of_its_parent(
    context: Callable[..., RunContext], trained: list[str], database: Database
) -> None:
    parent = context(patience=2)
    first, _ = train_or_find(parent, None, WEIGHTS)
    add_job(database, supernet_key=first)
    fork = context(claim(database), patience=2, budget=600)
    fork.origin = Origin(parent.lease.job_id, "fork")

    assert train_or_find(fork, None, WEIGHTS)[0] == first == job_of(database, fork.lease.job_id).supernet_key
    assert trained == [first]
