"""One rung of the finals as the service plays it: what is stored is found again, the rest is trained by Ray Tune and stored.

A leg of a trial is kept like a supernet of policy `fixed`: its key is the hash of its recipe, which names what it starts from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any

from sqlalchemy.orm import Session
from torch import Tensor

from glora_core.configs import SubnetConfig, config_hash, encode
from glora_core.errors import Diverged
from glora_core.evaluation import Score
from glora_core.finals import FinalsSettings, Leg, halved
from glora_core.finals.run import leg_settings
from glora_core.search import Evaluated
from glora_core.supernet import Supernet
from glora_core.training import TrainingSettings
from services.cluster.rung import Origin, Task, Trained, train_rung
from services.cluster.scoring import score_split
from services.protocol import PROTOCOL
from services.scheduler.context import RunContext
from services.scheduler.evaluating import fitness_of
from services.scheduler.prepare import Prepared
from services.scheduler.searching import evaluated
from services.scheduler.supernets import epoch_event, key_of, recipe_of, store_state, store_supernet, stored_state, supernet_settings
from services.scheduler.turns import trained_once
from services.store import claims, events, search_state
from services.store.models import Job
from services.store.search_state import evaluation_row


@dataclass(frozen=True)
class Finalist:
    """A subnet that may be exported.

    Attributes:
        source: where the subnet comes from: `search`, `search #1`, …, or the name of a known method.
        fitness: on val.
        supernet_key: of the supernet that holds its weights.
        settings: how that supernet was trained.
        leg: how it was trained alone, in no epochs where it stands as it is in the job's supernet; None where there were no finals.
    """

    source: str
    fitness: Evaluated
    supernet_key: str
    settings: TrainingSettings
    leg: Leg | None = None

    @property
    def key(self) -> str:
        """What tells its weights from all others."""
        return f"{self.supernet_key}:{config_hash(self.fitness.config)}"

    @property
    def sliced(self) -> bool:
        """Whether it comes from its slice of the job's supernet."""
        return self.leg is not None and self.leg.trial.sliced

    def state(self, context: RunContext) -> dict[str, Tensor]:
        """The trainable state that holds this finalist's weights."""
        found = stored_state(context, self.supernet_key)
        assert found is not None
        return found


@dataclass(frozen=True)
class _Plan:
    """A leg, how it is trained, and what it is stored as."""

    leg: Leg
    settings: TrainingSettings
    recipe: dict[str, Any]
    key: str

    def facts(self) -> dict[str, Any]:
        """What events say of it."""
        return {"source": self.leg.trial.source, **trained_alone(self.leg)}


def trained_alone(leg: Leg) -> dict[str, Any]:
    """How a leg's subnet was trained alone, for events and results; `epochs` are all of these, 0 as it stands in the supernet."""
    start = "supernet" if leg.sliced else "scratch"
    return {"start": start, "learning_rate": leg.trial.learning_rate, "rung": leg.rung, "epochs": leg.trained}


class Rungs:
    """Trains one rung after another.

    Args:
        searched: the search's winner inside the job's supernet, whose slices the first rung starts from.
        settings: of the finals.
    """

    def __init__(self, context: RunContext, prepared: Prepared, searched: Finalist, settings: FinalsSettings) -> None:
        self._context, self._prepared, self._searched, self._settings = context, prepared, searched, settings
        self._rung = self._done = 0

    def train(self, legs: Sequence[Leg], before: Mapping[str, Finalist]) -> dict[str, Finalist]:
        """Every leg's finalist, by its trial's name; those that are stored are not trained again, those that diverge are left out.

        Args:
            before: what the trials reached in the rung before.
        """
        self._rung += 1
        plans = [self._plan(leg, before) for leg in legs]
        diverged = self._diverged()
        missing = {plan.key: plan for plan in plans if plan.key not in diverged and self._stored(plan) is None}
        self._announce(legs, len(missing))
        self._train_missing(missing, before)
        self._done += len(legs)
        found = {plan.leg.trial.name: self._stored(plan) for plan in plans}
        return {name: finalist for name, finalist in found.items() if finalist is not None}

    def _plan(self, leg: Leg, before: Mapping[str, Finalist]) -> _Plan:
        start = None if leg.afresh else before.get(leg.trial.name, self._searched if leg.sliced else None)
        settings = leg_settings(leg, supernet_settings(self._context), start.supernet_key if start else None)
        recipe = recipe_of(self._context, self._prepared.weights_hash, settings)
        return _Plan(leg, settings, recipe, key_of(recipe))

    def _stored(self, plan: _Plan) -> Finalist | None:
        config = plan.leg.trial.config
        digest, metric = config_hash(config), self._context.request.search.metric
        with self._context.database.read() as session:
            row = search_state.known(session, plan.key, "val", PROTOCOL, metric, [digest]).get(digest)
        return None if row is None else Finalist(plan.leg.trial.source, evaluated(row), plan.key, plan.settings, plan.leg)

    def _scored_as_trained(self, plan: _Plan) -> bool:
        """Score a leg that a job with another metric has trained; False if none has."""
        state = stored_state(self._context, plan.key)
        if state is None:
            return False
        share = self._context.worker_share
        with self._context.wanting("score", share):
            val = score_split(self._prepared.workload, plan.settings, state, plan.leg.trial.config, None, share)
        with self._context.fenced() as (session, job):
            self._store_score(session, job, plan, val)
        return True

    def _diverged(self) -> set[str]:
        """Keys of what has diverged in this job, before a restart perhaps."""
        with self._context.database.read() as session:
            return {event.data["supernet"] for event in events.of_kind(session, self._context.lease.job_id, "finalist_diverged")}

    def _announce(self, legs: Sequence[Leg], missing: int) -> None:
        """Say which rung begins, and how many legs of all rungs are done and will be."""
        lengths = {sliced: len(self._settings.rungs(sliced)) for sliced in {leg.trial.sliced for leg in legs}}
        counts = [halved(sum(leg.trial.sliced == sliced for leg in legs), left - self._rung + 1) for sliced, left in lengths.items()]
        total, done, rungs = self._done + sum(map(sum, counts)), self._done + len(legs) - missing, max(lengths.values())
        self._context.emit("finals", {"rung": self._rung, "rungs": rungs, "missing": missing, "done": done, "finalists": total})

    def _train_missing(self, missing: Mapping[str, _Plan], before: Mapping[str, Finalist]) -> None:
        """Train what nobody has stored. Raises GaveWay."""

        def left(plans: Mapping[str, _Plan]) -> dict[str, _Plan]:
            diverged = self._diverged()
            return {k: p for k, p in plans.items() if k not in diverged and self._stored(p) is None and not self._scored_as_trained(p)}

        trained_once(self._context, missing, left, lambda plans: self._train(plans, before))

    def _train(self, missing: Mapping[str, _Plan], before: Mapping[str, Finalist]) -> None:
        """Train legs by their keys, and store each as soon as it is trained."""
        context, starts = self._context, self._starts(before)
        filesystem, folder = context.blobs.training_folder()
        runs = f"{context.lease.job_id}-{context.lease.epoch}-rung"  # a successor's rung is not ours to remove
        tasks = {key: Task(plan.settings, starts(plan.leg)) for key, plan in missing.items()}
        with context.wanting("finalist", context.worker_share):
            train_rung(
                self._prepared.workload,
                tasks,
                share=context.worker_share,
                name=f"{runs}-{self._rung}",
                filesystem=filesystem,
                folder=folder,
                on_done=lambda key, result: self._store(missing[key], result),
                origin=self._origin if any(plan.settings.teachers for plan in missing.values()) else None,
                on_checkpoint=context.progressed,
                pausing=context.pausing.is_set,
            )
        context.blobs.remove_training(runs)

    @cached_property
    def _origin(self) -> Origin:
        """The job's supernet, fetched once for all rungs."""
        return Origin(self._searched.settings, self._searched.state(self._context))

    def _starts(self, before: Mapping[str, Finalist]) -> Callable[[Leg], dict[str, Tensor] | None]:
        """What a leg starts from: its trial's state after the rung before, its slice of the job's supernet, or nothing."""

        @cache
        def supernet() -> Supernet:
            return self._prepared.local.supernet(self._origin.settings, self._origin.state)

        @cache
        def cut(config: SubnetConfig) -> dict[str, Tensor]:
            return supernet().cut(config).trainable_state()

        def start(leg: Leg) -> dict[str, Tensor] | None:
            if leg.trial.name in before and not leg.afresh:
                return before[leg.trial.name].state(self._context)
            return cut(leg.trial.config) if leg.sliced else None

        return start

    def _store(self, plan: _Plan, result: Trained | Diverged) -> None:
        if isinstance(result, Diverged):
            with self._context.fenced() as (session, job):
                claims.drop(session, self._context.lease, [plan.key])
                told = plan.facts() | {"supernet": plan.key, "message": str(result)}
                events.append(session, job.id, "finalist_diverged", told)
            return
        artifact = store_state(self._context, result.state, plan.key, "finalist")
        with self._context.fenced() as (session, job):
            store_supernet(session, plan.key, plan.recipe, [epoch_event(row) for row in result.history], artifact)
            claims.drop(session, self._context.lease, [plan.key])
            self._store_score(session, job, plan, result.val)

    def _store_score(self, session: Session, job: Job, plan: _Plan, val: Score) -> None:
        """A leg's evaluation by the job's metric, and the event that reports it."""
        config, fitness, metric = plan.leg.trial.config, fitness_of(val), self._context.request.search.metric
        parameters = self._context.space.parameters(config)
        row = evaluation_row(plan.key, "val", PROTOCOL, metric, config_hash(config), encode(config), parameters, fitness)
        search_state.add_evaluations(session, [row])
        job.attempts = 0
        measured = {name: value for name, value in asdict(fitness).items() if name != "examples"}
        events.append(session, job.id, "finalist", plan.facts() | measured | {"parameters": parameters})
