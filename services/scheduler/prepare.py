"""Phase `prepare`: data checked again, examples and backbone loaded, everything put into Ray's object store once."""

from dataclasses import dataclass

import ray

from glora_core.backbones import load
from glora_core.backbones.fingerprint import weights_hash
from glora_core.data.shifted import present
from services.cluster.workload import Second, Workload
from services.scheduler.context import RunContext


@dataclass(frozen=True)
class Prepared:
    """The job's inputs, here and in the object store.

    Attributes:
        workload: reference for the workers; `local` is the same object here.
        weights_hash: sha256 (hex) of the backbone's weights, head left out.
    """

    workload: "ray.ObjectRef[Workload]"
    local: Workload
    weights_hash: str


def prepare(context: RunContext) -> Prepared:
    """Load and share a job's inputs.

    Raises:
        DataInvalid: the data changed or cannot be read, or it or the backbone leads out of the data roots.
        BackboneUnknown: the backbone's weights are out of reach.
    """
    data = context.data
    context.also_tests  # noqa: B018 - refused now, and not after the search, if a set has changed
    context.space.check_budget(context.request.budget)
    train, val = (context.reader.load(data, name) for name in ("train", "val"))
    plain = load(context.spec, len(data.classes))
    local = Workload(plain, context.space, train, val, context.request.search.metric, _second(context))
    return Prepared(ray.put(local), local, weights_hash(plain))


def _second(context: RunContext) -> Second | None:
    """What the second objective is measured on, known in SQL as test sets are; None if there is none."""
    part = context.second
    return None if part is None else Second(context.reader.load(part, "test"), present(part), part.fingerprint[:16])
