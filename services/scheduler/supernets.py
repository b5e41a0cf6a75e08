"""Phase `train`, and everything else that trains: supernets are looked up by their key, and trained only on a miss.

A subnet trained alone is the supernet of policy `fixed`, so finalists and known methods are stored and found again in
the very same way.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import ray
from sqlalchemy.orm import Session
from torch import Tensor

from glora_core.export import load_state, save_state, versions
from glora_core.training import Progress, TrainingSettings
from services.cluster.training import train_supernet
from services.cluster.workload import Workload
from services.scheduler.context import RunContext
from services.scheduler.turns import made_once
from services.store import artifacts, claims, events, jobs, search_state
from services.store.blobs import training_name
from services.store.models import Artifact, Supernet

_PATIENCE_LEASES = 4
"""Lease times that training workers go on without a word from their runner: one that is only slow shall not lose them."""


_MAY_DIFFER = ("versions", "probed_within")
"""Parts of a recipe in which a job may differ from the supernet that it keeps: newer software, and a fork's own budget."""


class InputsChanged(RuntimeError):
    """A resumed job would go on with another supernet than it began with; submit it anew."""


def supernet_settings(context: RunContext) -> TrainingSettings:
    """How the job's supernet is trained."""
    asked = context.request.training.model_dump(exclude={"workers", "use_gpu", "sampling_budget"})
    drawn_within = context.request.training.sampling_budget
    budget = (context.request.budget if drawn_within is None else drawn_within) if asked["sampling"] == "budget" else None
    return TrainingSettings(**asked, budget=budget, seed=context.request.seed)


def recipe_of(context: RunContext, weights_hash: str, settings: TrainingSettings) -> dict[str, Any]:
    """All that determines a trained supernet; its hash is the supernet's key.

    Where probes may end the training, that is also the budget which the probed subnets are drawn within.
    """
    return {
        "weights": weights_hash,
        "architecture": context.info.architecture,
        "arguments": context.info.arguments,
        "data": context.data_facts["fingerprint"],
        "space": context.space.to_dict(),
        **context.reader.recipe(),
        "training": settings.to_dict(),
        "workers": context.request.training.workers if settings.policy != "fixed" else 1,
        "device": "cuda" if context.request.training.use_gpu else "cpu",
        "versions": versions(*context.reader.libraries),
        **({} if settings.patience is None else {"probed_within": context.request.budget}),
    }


def key_of(recipe: Mapping[str, Any]) -> str:
    """sha256 (hex) of a recipe."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def stored_state(context: RunContext, key: str) -> dict[str, Tensor] | None:
    """The trainable state of a stored supernet; None if there is none. Raises BlobMissing if its bytes are gone."""
    with context.database.read() as session:
        row = search_state.supernet(session, key)
        artifact = session.get(Artifact, row.artifact_id) if row else None
    if artifact is None:
        return None
    return load_state(context.blobs.fetch(artifact.sha256, context.workdir / artifact.name))


def train_or_find(context: RunContext, workload: "ray.ObjectRef[Workload]", weights_hash: str) -> tuple[str, dict[str, Tensor]]:
    """The key and trainable state of the job's supernet, trained by Ray Train if it is not stored yet and no other job is training it.

    Raises:
        Diverged, NotLearning: training was given up.
        InputsChanged: the job began its search, or was forked, over a supernet that its inputs no longer give.
    """
    settings = supernet_settings(context)
    recipe = recipe_of(context, weights_hash, settings)
    key = _kept_key(context, recipe) or key_of(recipe)
    state, found = made_once(context, key, lambda: stored_state(context, key), lambda: _train(context, workload, settings, recipe, key))
    if found:
        context.emit("supernet_found", {"supernet": key})
    with context.fenced() as (_, job):
        job.supernet_key = key
    return key, state


def _kept_key(context: RunContext, recipe: Mapping[str, Any]) -> str | None:
    """The key of the supernet that a job keeps though the software may be newer, or None: what it has begun to search,
    and of an extended or forked job its parent's.

    Raises:
        InputsChanged: something else changed, or that supernet is gone.
    """
    made_from = context.origin is not None and context.origin.action != "clone"
    with context.database.read() as session:
        job = jobs.get(session, context.lease.job_id)
        if not made_from and search_state.last_generation(session, job.id) is None:
            return None
        row = search_state.supernet(session, key := job.supernet_key or "")
    if row is None:
        raise InputsChanged(f"the supernet {key[:12]} of job {context.lease.job_id} is not stored any more; submit the job anew")
    now = json.loads(json.dumps(recipe))
    usual = json.loads(json.dumps(TrainingSettings().to_dict()))
    then = row.recipe | {"training": usual | row.recipe.get("training", {})}  # which may lack settings that there were not yet
    changed = [name for name in now if name not in _MAY_DIFFER and then.get(name) != now[name]]
    if changed:
        raise InputsChanged(f"the supernet of job {context.lease.job_id} cannot be used: {', '.join(changed)} changed since it was trained")
    return key


def _train(
    context: RunContext, workload: "ray.ObjectRef[Workload]", settings: TrainingSettings, recipe: dict[str, Any], key: str
) -> dict[str, Tensor]:
    training = context.request.training
    filesystem, root = context.blobs.training_folder()
    with context.database.read() as session:
        told = [event.data["epoch"] for event in events.of_kind(session, context.lease.job_id, "epoch")]
    furthest = max(told, default=0)

    def note(row: Progress) -> None:
        with context.fenced() as (session, job):
            events.append(session, job.id, "epoch", epoch_event(row))
            if row.epoch > furthest:  # what no attempt has reached before is progress
                job.attempts = 0

    with context.wanting("training worker", context.worker_share, training.workers):
        result = train_supernet(
            workload,
            settings,
            workers=training.workers,
            share=context.worker_share,
            prefix=f"{training_name(key)}-",
            attempt=f"{context.lease.job_id}-{context.lease.epoch}",
            patience_seconds=_PATIENCE_LEASES * context.settings.lease_seconds,
            filesystem=filesystem,
            folder=root,
            budget=context.request.budget,
            on_epoch=note,
            told=furthest or None,  # what another job has trained is told by that one
            pausing=context.pausing.is_set,
        )
    state: dict[str, Tensor] = result["trainable"]
    artifact = store_state(context, state, key, "supernet")
    with context.fenced() as (session, job):
        store_supernet(session, key, recipe, result["history"], artifact)
        claims.drop(session, context.lease, [key])
        job.attempts = 0
    context.blobs.remove_training(training_name(key))
    return state


def store_state(context: RunContext, state: dict[str, Tensor], key: str, kind: str) -> Artifact:
    """Make a trainable state durable; returns the artifact row to add with its supernet.

    Args:
        kind: `supernet`, or `finalist` for one that has a single subnet.
    """
    path = context.workdir / f"{kind}-{key[:12]}.safetensors"
    save_state(path, state)
    return artifacts.stored(context.blobs, path, kind, context.lease.job_id)


def store_supernet(session: Session, key: str, recipe: dict[str, Any], history: Sequence[dict[str, Any]], artifact: Artifact) -> None:
    """Add a trained supernet and its artifact, with its training history."""
    seconds = history[-1]["seconds"] if history else 0.0
    row = Supernet(key=key, recipe=recipe, history=list(history), artifact_id=artifact.id, seconds=seconds, created_at=datetime.now(UTC))
    search_state.add_supernet(session, row, artifact)


def epoch_event(row: Progress) -> dict[str, Any]:
    """The payload of an epoch's event."""
    return asdict(row)
