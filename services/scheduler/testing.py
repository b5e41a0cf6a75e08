"""Scores on test sets, for what a job exports and its baselines: `test`, and those for domain shift.

Every score is kept in SQL, so that a resumed job does not touch a set again; one set is in memory at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import ray

from glora_core.configs import config_hash, encode
from glora_core.data.images import ImageSplit, load_split
from glora_core.data.labelled import ImageFolder
from glora_core.data.shifted import present
from glora_core.evaluation import Score
from services.cluster.scoring import score_split
from services.protocol import PROTOCOL
from services.scheduler.context import RunContext
from services.scheduler.legs import Finalist
from services.scheduler.prepare import Prepared
from services.store import search_state
from services.store.search_state import Fitness, evaluation_row


@dataclass(frozen=True)
class ScoredSet:
    """A test split; `key` is its name in SQL, `among` the labels that answers are chosen from, all if empty."""

    data: ImageFolder
    key: str
    among: tuple[int, ...] = ()


def sets_of(context: RunContext) -> dict[str, ScoredSet]:
    """The job's test sets by name. A further one is known in SQL by 64 bits of its fingerprint, which names its classes too."""
    own = {"test": ScoredSet(context.data, "test")} if "test" in context.data.splits else {}
    return own | {name: ScoredSet(data, data.fingerprint[:16], present(data)) for name, data in context.also_tests.items()}


def score_tests(context: RunContext, prepared: Prepared, finalists: Sequence[Finalist]) -> list[dict[str, Score]]:
    """Each finalist's scores, by name of the test set."""
    columns = {name: _on_one_set(context, prepared, finalists, chosen) for name, chosen in sets_of(context).items()}
    return [{name: column[place] for name, column in columns.items()} for place in range(len(finalists))]


def _on_one_set(context: RunContext, prepared: Prepared, finalists: Sequence[Finalist], chosen: ScoredSet) -> list[Score]:
    @cache
    def images() -> "ray.ObjectRef[ImageSplit]":
        reference: ray.ObjectRef[ImageSplit] = ray.put(load_split(chosen.data, "test", context.info.images))
        return reference

    found = []
    for finalist in finalists:
        score = _known(context, finalist, chosen.key)
        if score is None:
            config, state, use_gpu = finalist.fitness.config, finalist.state(context), context.request.training.use_gpu
            score = score_split(prepared.workload, finalist.settings, state, config, images(), use_gpu, chosen.among)
            _keep(context, finalist, chosen.key, score)
        found.append(score)
    return found


def _known(context: RunContext, finalist: Finalist, key: str) -> Score | None:
    digest = config_hash(finalist.fitness.config)
    with context.database.read() as session:
        row = search_state.known(session, finalist.supernet_key, key, PROTOCOL, [digest]).get(digest)
    return None if row is None else Score(row.accuracy, row.loss, row.examples)


def _keep(context: RunContext, finalist: Finalist, key: str, score: Score) -> None:
    config = finalist.fitness.config
    fitness = Fitness(score.accuracy, score.loss, score.examples)
    fresh = evaluation_row(finalist.supernet_key, key, PROTOCOL, config_hash(config), encode(config), finalist.fitness.parameters, fitness)
    with context.fenced() as (session, _):
        search_state.add_evaluations(session, [fresh])
