"""A soup of finalists: chosen on val after the finals, and exported where it is better there than the best of them.

What was chosen is an event of the job, so that a resumed one goes on with the same soup; it would choose the same again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from glora_core.finals import asked_for_soup, one_basin
from glora_core.metrics import ACCURACY
from glora_core.search import Evaluated
from services.cluster.soup import Ingredient, cook
from services.scheduler.context import RunContext
from services.scheduler.evaluating import fitness_of
from services.scheduler.legs import Finalist, trained_alone
from services.scheduler.prepare import Prepared
from services.store import events
from services.store.search_state import Fitness


@dataclass(frozen=True)
class Soup:
    """The average of finalists' merged weights.

    Attributes:
        members: each within the budget, in the order they were taken up.
        fitness: of the average on val; its parameters are the sum of the members', its config is the first one's.
    """

    members: tuple[Finalist, ...]
    fitness: Evaluated

    @property
    def digest(self) -> str:
        """Hash of what is averaged."""
        return hashlib.sha256("\n".join(member.key for member in self.members).encode()).hexdigest()

    def ingredients(self, context: RunContext) -> list[Ingredient]:
        """What a task of the cluster averages."""
        return [ingredient(context, member) for member in self.members]


def soup_of(context: RunContext, prepared: Prepared, finalists: Sequence[Finalist]) -> Soup | None:
    """The best soup of the finalists; None if that is the best of them alone, or none is wanted."""
    asked = asked_for_soup(finalists, len(prepared.local.val)) if context.request.finals.soup else []
    if len(asked) < 2:
        return None
    keys = [finalist.key for finalist in asked]
    told = _told(context, keys) or _choose(context, prepared, asked)
    members = tuple(asked[keys.index(key)] for key in told["members"])
    return Soup(members, _evaluated(context, members, told)) if len(members) > 1 else None


def ingredient(context: RunContext, finalist: Finalist) -> Ingredient:
    """A finalist as a task of the cluster takes it."""
    return Ingredient(finalist.settings, finalist.state(context), finalist.fitness.config)


def _told(context: RunContext, keys: Sequence[str]) -> dict[str, Any] | None:
    """What this job has chosen among the same finalists before."""
    with context.database.read() as session:
        found = [event.data for event in events.of_kind(session, context.lease.job_id, "soup")]
    return next((data for data in reversed(found) if data["asked"] == list(keys)), None)


def _choose(context: RunContext, prepared: Prepared, asked: Sequence[Finalist]) -> dict[str, Any]:
    offered = [ingredient(context, finalist) for finalist in asked]
    with context.wanting("soup", context.worker_share):
        places, score = cook(prepared.workload, offered, one_basin(asked), context.worker_share)
    members = [asked[place] for place in places]
    told = {
        "asked": [finalist.key for finalist in asked],
        "members": [member.key for member in members],
        "finalists": [{"source": member.source, **(trained_alone(member.leg) if member.leg else {})} for member in members],
        "parameters": sum(member.fitness.parameters for member in members),
        **asdict(fitness_of(score)),
    }
    context.emit("soup", told)
    return told


def _evaluated(context: RunContext, members: Sequence[Finalist], told: dict[str, Any]) -> Evaluated:
    fitness = Fitness(**{name: told[name] for name in ("accuracy", "loss", "examples", "macro_accuracy", "fitness")})
    measure = None if context.request.search.metric == ACCURACY else fitness.fitness
    measured = replace(members[0].fitness, accuracy=fitness.accuracy, loss=fitness.loss, macro_accuracy=fitness.macro_accuracy)
    return replace(measured, measure=measure, parameters=told["parameters"])
