"""The winner trained once more, on train and val together, in the very way that was chosen: VTAB's own protocol.

Subnet, learning rate and length are settled by then; val plays no further part, and only test sets can tell what it is worth.
Every leg is kept like a finalist's, so a resumed job trains none twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import ray
from torch import Tensor

from glora_core.errors import Diverged
from glora_core.finals import Leg, way
from glora_core.finals.run import leg_settings
from glora_core.training import TrainingSettings
from services.cluster.rung import Origin, Task, Trained, train_rung
from services.scheduler.context import RunContext
from services.scheduler.finals import Outcome
from services.scheduler.legs import Finalist, trained_alone
from services.scheduler.prepare import Prepared
from services.scheduler.soups import Soup
from services.scheduler.supernets import epoch_event, key_of, recipe_of, store_state, store_supernet, stored_state, supernet_settings
from services.scheduler.turns import trained_once
from services.store import claims, search_state

SPLIT = "train+val"


def retrain(context: RunContext, prepared: Prepared, outcome: Outcome, supernet_key: str) -> Outcome:
    """The outcome with what will be exported trained again, where the job asks for that and there is something that was trained alone.

    Raises:
        Diverged: a loss was not finite.
    """
    chosen = outcome.soup or outcome.winner
    members = chosen.members if isinstance(chosen, Soup) else (chosen,)
    if not context.request.train_on_val or any(member.leg is None for member in members):
        return outcome
    again = tuple(_Retraining(context, prepared, supernet_key).train(members))
    return replace(outcome, retrained=replace(chosen, members=again) if isinstance(chosen, Soup) else again[0])


@dataclass(frozen=True)
class _Step:
    """One leg of a finalist's way, with the key of what it is stored as and of what it starts from."""

    leg: Leg
    settings: TrainingSettings
    recipe: dict[str, Any]
    key: str
    start: str | None


class _Retraining:
    """Trains the legs of several finalists, those of one length of way at a time."""

    def __init__(self, context: RunContext, prepared: Prepared, supernet_key: str) -> None:
        self._context, self._prepared, self._supernet_key = context, prepared, supernet_key
        self._finals = context.request.played_finals

    def train(self, members: Sequence[Finalist]) -> list[Finalist]:
        """The finalists with the weights of both splits, and what they had reached on val before."""
        ways = [self._way(member) for member in members]
        for place in range(max(map(len, ways))):
            self._train_missing({steps[place].key: steps[place] for steps in ways if place < len(steps)}, place)
        return [
            replace(member, supernet_key=steps[-1].key, settings=steps[-1].settings) for member, steps in zip(members, ways, strict=True)
        ]

    def _way(self, member: Finalist) -> list[_Step]:
        assert member.leg is not None
        steps: list[_Step] = []
        start = self._supernet_key if member.leg.sliced else None
        for leg in way(member.leg, self._finals):
            settings = leg_settings(leg, supernet_settings(self._context), start)
            recipe = recipe_of(self._context, self._prepared.weights_hash, settings) | {"split": SPLIT}
            steps.append(_Step(leg, settings, recipe, key_of(recipe), start))
            start = steps[-1].key
        return steps

    def _train_missing(self, steps: Mapping[str, _Step], place: int) -> None:
        def left(wanted: Mapping[str, _Step]) -> dict[str, _Step]:
            with self._context.database.read() as session:
                return {key: step for key, step in wanted.items() if search_state.supernet(session, key) is None}

        trained_once(self._context, steps, left, lambda missing: self._train(missing, place))

    def _train(self, missing: Mapping[str, _Step], place: int) -> None:
        local, context = self._prepared.local, self._context
        both = replace(local, train=context.reader.load(context.data, SPLIT))
        filesystem, folder = context.blobs.training_folder()
        runs = f"{context.lease.job_id}-{context.lease.epoch}-again"  # a successor's are not ours to remove
        tasks = {key: Task(step.settings, self._start(step)) for key, step in missing.items()}
        with context.wanting("finalist", context.worker_share):
            train_rung(
                ray.put(both),
                tasks,
                share=context.worker_share,
                name=f"{runs}-{place}",
                filesystem=filesystem,
                folder=folder,
                on_done=lambda key, result: self._store(missing[key], result, len(both.train)),
                origin=self._origin if any(step.settings.teachers for step in missing.values()) else None,
                on_checkpoint=context.progressed,
                pausing=context.pausing.is_set,
            )
        context.blobs.remove_training(runs)

    def _start(self, step: _Step) -> dict[str, Tensor] | None:
        """What a leg starts from: the leg before, the finalist's slice of the supernet, or nothing."""
        if step.start is None:
            return None
        if step.start != self._supernet_key:
            state = stored_state(self._context, step.start)
            assert state is not None
            return state
        supernet = self._prepared.local.supernet(self._origin.settings, self._origin.state)
        return supernet.cut(step.leg.trial.config).trainable_state()

    @cached_property
    def _origin(self) -> Origin:
        """The job's supernet, fetched once for all members."""
        state = stored_state(self._context, self._supernet_key)
        assert state is not None
        return Origin(supernet_settings(self._context), state)

    def _store(self, step: _Step, result: Trained | Diverged, examples: int) -> None:
        if isinstance(result, Diverged):
            raise Diverged(f"{step.leg.trial.name}, trained again on train and val together: {result}")
        artifact = store_state(self._context, result.state, step.key, "finalist")
        with self._context.fenced() as (session, job):
            store_supernet(session, step.key, step.recipe, [epoch_event(row) for row in result.history], artifact)
            claims.drop(session, self._context.lease, [step.key])
            job.attempts = 0
        self._context.emit(
            "retrained",
            {"source": step.leg.trial.source, **trained_alone(step.leg), "split": SPLIT, "examples": examples, "supernet": step.key},
        )
