"""Scores on test sets by the job's metric, for what it exports and its baselines: `test`, and those for domain shift.

Every score is kept in SQL, so that a resumed job does not touch a set again; one set is in memory at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache

import ray

from glora_core.configs import config_hash, encode
from glora_core.data.labelled import AnyData
from glora_core.data.shifted import present
from glora_core.data.split import Split
from services.cluster.scoring import score_split
from services.cluster.soup import score_soup
from services.protocol import PROTOCOL
from services.scheduler.context import RunContext
from services.scheduler.evaluating import fitness_of
from services.scheduler.legs import Finalist
from services.scheduler.prepare import Prepared
from services.scheduler.soups import Soup
from services.store import events, search_state
from services.store.search_state import Fitness, evaluation_row


@dataclass(frozen=True)
class ScoredSet:
    """A test split; `key` is its name in SQL, `among` the labels that answers are chosen from, all if empty."""

    data: AnyData
    key: str
    among: tuple[int, ...] = ()


def sets_of(context: RunContext) -> dict[str, ScoredSet]:
    """The job's test sets by name. A further one is known in SQL by 64 bits of its fingerprint, which names its classes too."""
    own = {"test": ScoredSet(context.data, "test")} if "test" in context.data.splits else {}
    return own | {name: ScoredSet(data, data.fingerprint[:16], present(data)) for name, data in context.also_tests.items()}


def score_tests(context: RunContext, prepared: Prepared, models: Sequence[Finalist | Soup]) -> list[dict[str, Fitness]]:
    """Each model's scores, by name of the test set."""
    columns = {name: _on_one_set(context, prepared, models, chosen) for name, chosen in sets_of(context).items()}
    return [{name: column[place] for name, column in columns.items()} for place in range(len(models))]


def _on_one_set(context: RunContext, prepared: Prepared, models: Sequence[Finalist | Soup], chosen: ScoredSet) -> list[Fitness]:
    @cache
    def examples() -> "ray.ObjectRef[Split]":
        reference: ray.ObjectRef[Split] = ray.put(context.reader.load(chosen.data, "test"))
        return reference

    return [
        _soups_score(context, prepared, model, chosen, examples)
        if isinstance(model, Soup)
        else _score(context, prepared, model, chosen, examples)
        for model in models
    ]


Examples = Callable[[], "ray.ObjectRef[Split]"]


def _score(context: RunContext, prepared: Prepared, finalist: Finalist, chosen: ScoredSet, examples: Examples) -> Fitness:
    """A finalist's score, stored with its evaluations."""
    known = _known(context, finalist, chosen.key)
    if known is not None:
        return known
    config, state, share = finalist.fitness.config, finalist.state(context), context.worker_share
    with context.wanting("score", share):
        fitness = fitness_of(score_split(prepared.workload, finalist.settings, state, config, examples(), share, chosen.among))
    _keep(context, finalist, chosen.key, fitness)
    return fitness


def _soups_score(context: RunContext, prepared: Prepared, soup: Soup, chosen: ScoredSet, examples: Examples) -> Fitness:
    """A soup's score, stored as an event: it is no subnet of a supernet, and so has no evaluations."""
    with context.database.read() as session:
        told = [event.data for event in events.of_kind(session, context.lease.job_id, "soup_tested")]
    for data in told:
        if (data["soup"], data["set"]) == (soup.digest, chosen.key):
            return Fitness(**data["score"])
    with context.wanting("score", context.worker_share):
        fitness = fitness_of(score_soup(prepared.workload, soup.ingredients(context), examples(), context.worker_share, chosen.among))
    context.emit("soup_tested", {"soup": soup.digest, "set": chosen.key, "score": asdict(fitness)})
    return fitness


def _known(context: RunContext, finalist: Finalist, key: str) -> Fitness | None:
    digest, metric = config_hash(finalist.fitness.config), context.request.search.metric
    with context.database.read() as session:
        row = search_state.known(session, finalist.supernet_key, key, PROTOCOL, metric, [digest]).get(digest)
    return None if row is None else search_state.fitness_of(row)


def _keep(context: RunContext, finalist: Finalist, key: str, fitness: Fitness) -> None:
    config, metric, parameters = finalist.fitness.config, context.request.search.metric, finalist.fitness.parameters
    fresh = evaluation_row(finalist.supernet_key, key, PROTOCOL, metric, config_hash(config), encode(config), parameters, fitness)
    with context.fenced() as (session, _):
        search_state.add_evaluations(session, [fresh])
