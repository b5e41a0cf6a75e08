"""Phase `prepare`: data checked again, images and backbone loaded, everything put into Ray's object store once."""

import hashlib
from dataclasses import dataclass

import ray
from torch import nn

from glora_core.backbones import classifier, load
from glora_core.data.images import load_split
from services.cluster.workload import Workload
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
        DataInvalid: the data changed or cannot be read.
        BackboneUnknown: the backbone's weights are out of reach.
    """
    data = context.data
    context.space.check_budget(context.request.budget)
    train, val = (load_split(data, name, context.info.images) for name in ("train", "val"))
    plain = load(context.spec, len(data.classes))
    local = Workload(plain, context.space, train, val)
    return Prepared(ray.put(local), local, weights_hash(plain))


def weights_hash(plain: nn.Module) -> str:
    """sha256 (hex) over names and values of a network's tensors, its freshly made head left out."""
    classes = classifier(plain)
    head = {id(p) for p in classes.parameters()} if classes is not None else set()
    digest = hashlib.sha256()
    for name, value in sorted(plain.state_dict(keep_vars=True).items()):
        if id(value) not in head:
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
