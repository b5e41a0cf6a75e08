"""Rows and bytes that the tests of the API and the client start from, written with the store's own functions."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from glora_core.configs import config_hash, encode
from glora_core.space import LayerShape, SearchSpace
from services.job_request import JobRequest
from services.protocol import PROTOCOL
from services.store import artifacts, backbones, events, jobs, search_state
from services.store.blobs import BlobStore
from services.store.database import Database
from services.store.jobs import Lease
from services.store.models import Artifact, Backbone, Candidate, Generation, Job, JobEvent, Supernet
from services.store.retries import RetryRules
from services.store.search_state import Fitness, evaluation_row

BACKBONE = "toy_vit"
LAYERS = ({"name": "qkv", "in_features": 8, "out_features": 24}, {"name": "proj", "in_features": 8, "out_features": 8})
INFO = {"architecture": "toy_vit", "parameters": 1000, "source": "timm", "license": "apache-2.0", "layers": list(LAYERS), "transform": {}}
SPACE = SearchSpace(tuple(LayerShape(**layer) for layer in LAYERS))
CHECKPOINT = {
    "merged": ("model.safetensors", b"\x00weights" * 500),
    "timm-config": ("config.json", b'{"architecture": "toy_vit"}'),
    "manifest": ("MANIFEST.json", b'{"budget": 700}'),
}
_WINNER = {"source": "search #1", "hash": "h", "parameters": 640, "val_accuracy": 0.875, "val_loss": 0.5, "supernet": "s"} | {
    "start": "supernet",
    "learning_rate": 0.003,
    "rung": 2,
    "epochs": 45,
}
_SKETCH = {"sketch": {"accuracy": 0.4375, "loss": 2.5, "examples": 16}}
RESULT: dict[str, Any] = {
    "winner": _WINNER | {"test_accuracy": 0.8125, "test_loss": 0.6, "also_test": _SKETCH, "config": encode(SPACE.extreme(largest=False))},
    "finalists": [_WINNER],
    "baselines": [
        _WINNER
        | {"source": "lora", "supernet": "t", "start": "scratch", "rung": 1, "epochs": 60}
        | {"parameters": 512, "val_accuracy": 0.75, "test_accuracy": None, "test_loss": None, "also_test": _SKETCH}
    ],
    "merge_error": 1e-7,
}

_MEASURED = {"val_macro_accuracy": 0.625, "val_metric": 0.71875}
F1_RESULT = RESULT | {
    "metric": "MulticlassF1Score",
    "winner": RESULT["winner"] | _MEASURED | {"test_macro_accuracy": 0.5625, "test_metric": 0.65625},
    "finalists": [_WINNER | _MEASURED],
}
"""A result of a search for another metric; `RESULT` is one of before there was a choice."""


_SECOND = _WINNER | {"source": "search #2", "hash": "i", "supernet": "u", "rung": 1, "epochs": 15, "parameters": 600, "val_accuracy": 0.86}
_MEMBERS = [member | {"config": encode(SPACE.extreme(largest=False))} for member in (_WINNER, _SECOND)]
SOUP_RESULT = RESULT | {
    "winner": {
        "source": "soup",
        "hash": "d",
        "supernet": None,
        "config": None,
        "parameters": 1240,
        "val_accuracy": 0.9,
        "val_loss": 0.4,
        "members": _MEMBERS,
        "test_accuracy": 0.8125,
        "also_test": _SKETCH,
    },
    "finalists": [_WINNER, _SECOND],
}
"""A result whose checkpoint is the average of two finalists."""


AGAIN = {"split": "train+val", "examples": 90, "supernets": ["v"], "test_accuracy": 0.84375, "test_loss": 0.4}
AGAIN_RESULT = RESULT | {"retrained": AGAIN | {"also_test": {"sketch": {"accuracy": 0.5, "loss": 2.0, "examples": 16}}}}
"""A result whose winner was trained on train and val together."""


def body(data: Path | str = "/data/flowers", **changes: Any) -> dict[str, Any]:
    """A request that is accepted where the data folder is usable and the backbone described."""
    return {"name": "flowers", "backbone": {"name": BACKBONE}, "data": {"path": str(data)}, "budget": 700} | changes


def add_backbone(database: Database, name: str = BACKBONE) -> str:
    """A described backbone; returns its key."""
    spec = JobRequest.model_validate(body(backbone={"name": name})).backbone.model_dump()
    with database.write() as session:
        row = backbones.request(session, spec)
        session.flush()
        backbones.describe(session, row.key, row.requested_at, info=INFO, error=None)
    return row.key


def add_job(database: Database, name: str = "flowers", **changes: Any) -> str:
    """A queued job; returns its id."""
    request = JobRequest.model_validate(body(name=name, **changes))
    facts = {"fingerprint": "f" * 64, "classes": ["a", "b"], "splits": {"train": 4, "val": 4}}
    key = backbones.key_of(request.backbone.model_dump())
    with database.read() as session:
        known = session.get(Backbone, key) is not None
    if not known:
        add_backbone(database, request.backbone.name)
    with database.write() as session:
        return jobs.create(session, name=name, request=request.model_dump(mode="json"), backbone_key=key, data=facts).id


def add_running(database: Database, name: str = "flowers", **changes: Any) -> Lease:
    """A job that a runner has claimed; the queue must be empty before."""
    job_id = add_job(database, name, **changes)
    lease = claim(database)
    assert lease.job_id == job_id
    return lease


def claim(database: Database) -> Lease:
    """Claim the next job of the queue."""
    with database.write() as session:
        lease = jobs.claim(session, "runner", 600, RetryRules())
    assert lease is not None
    return lease


def emit(database: Database, lease: Lease, phase: str) -> None:
    """One more event of a running job."""
    with jobs.fenced(database, lease) as (session, job):
        jobs.enter_phase(session, job, phase)


def add_finals(database: Database, lease: Lease) -> None:
    """The first rung of a running job's finals: one finalist and one that diverged, of three in all."""
    facts = {"start": "supernet", "learning_rate": 0.003, "rung": 1, "epochs": 15}
    scratch = {"start": "scratch", "rung": 1, "epochs": 60}
    measured = {"accuracy": 0.875, "macro_accuracy": 0.625, "fitness": 0.875, "loss": 0.5, "parameters": 640}
    with jobs.fenced(database, lease) as (session, job):
        events.append(session, job.id, "finals", {"rung": 1, "rungs": 2, "missing": 2, "done": 0, "finalists": 3})
        events.append(session, job.id, "finalist", {"source": "search #1"} | facts | measured)
        events.append(session, job.id, "finalist_diverged", {"source": "lora"} | facts | scratch | {"message": "training loss became nan"})


def succeed(database: Database, lease: Lease, result: dict[str, Any] = RESULT) -> None:
    """End a running job with a result."""
    with jobs.fenced(database, lease) as (session, job):
        jobs.succeed(session, job, result)


def fail(database: Database, lease: Lease, message: str = "image 'x.png' cannot be decoded") -> None:
    """End a running job with a reason."""
    with jobs.fenced(database, lease) as (session, job):
        jobs.fail(session, job, "data_invalid", message, "Traceback")


def add_search(database: Database, lease: Lease, generations: int, population: int, metric: str = "accuracy") -> None:
    """A supernet and so many whole generations of a running job; every candidate is a config of its own."""
    now, key = datetime.now(UTC), f"{lease.job_id}-supernet"
    with jobs.fenced(database, lease) as (session, job):
        artifact = Artifact(id=f"{key}-a", kind="supernet", name="s", media_type="x/y", size=1, sha256="0" * 64, created_at=now)
        session.add(artifact)
        session.flush()
        session.add(Supernet(key=key, recipe={}, history=[], artifact_id=artifact.id, seconds=1.0, created_at=now))
        job.supernet_key = key
    for number in range(generations):
        configs = [(SPACE.layer_configs[0][number], SPACE.layer_configs[1][position]) for position in range(population)]
        names = [(config_hash(config), encode(config), SPACE.parameters(config)) for config in configs]
        fresh = [
            evaluation_row(key, "val", PROTOCOL, metric, digest, text, size, _fitness((number + position + 1) / 100, metric))
            for position, (digest, text, size) in enumerate(names)
        ]
        candidates = [
            Candidate(
                job_id=lease.job_id,
                generation=number,
                position=position,
                config_hash=digest,
                config=text,
                parameters=size,
                operator="random",
                parents=[],
            )
            for position, (digest, text, size) in enumerate(names)
        ]
        generation = Generation(
            job_id=lease.job_id,
            number=number,
            best_hash=names[-1][0],
            best_accuracy=(number + population) / 100,
            best_fitness=_fitness((number + population) / 100, metric).fitness,
            best_loss=1.0,
            best_parameters=names[-1][2],
            evaluated=population,
            from_cache=0,
            seconds=0.5,
            committed_at=now,
        )
        with jobs.fenced(database, lease) as (session, job):
            search_state.add_evaluations(session, fresh)
            search_state.commit_generation(session, job, generation, candidates)


def _fitness(accuracy: float, metric: str) -> Fitness:
    """Of another metric than accuracy, half the accuracy."""
    return Fitness(accuracy, 1.0, 4, accuracy / 4, accuracy if metric == "accuracy" else accuracy / 2)


def add_artifact(database: Database, blobs: BlobStore, folder: Path, job_id: str, kind: str, name: str, content: bytes) -> Artifact:
    """A file of a job: bytes first, row second."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    row = artifacts.stored(blobs, path, kind, job_id)
    with database.write() as session:
        session.add(row)
    return row


def add_finished(database: Database, blobs: BlobStore, folder: Path) -> str:
    """A succeeded job with a checkpoint and the supernet it came from; returns its id."""
    lease = add_running(database)
    for kind, (name, content) in CHECKPOINT.items():
        add_artifact(database, blobs, folder, lease.job_id, kind, name, content)
    add_artifact(database, blobs, folder, lease.job_id, "supernet", "supernet.safetensors", b"not for download")
    succeed(database, lease)
    return lease.job_id


def blob_path(home: Path, digest: str) -> Path:
    """Where an artifact's bytes lie in a local store."""
    return home / "artifacts" / digest[:2] / digest


def counts(database: Database) -> tuple[int, int]:
    """Stored jobs and events."""
    with database.read() as session:
        return tuple(session.scalar(select(func.count()).select_from(model)) or 0 for model in (Job, JobEvent))  # type: ignore[return-value]


@contextmanager
def describer(database: Database, info: dict[str, Any] | None, error: str | None) -> Iterator[None]:
    """A stand-in for a scheduler in a thread: gives every asked-for backbone the same description, or the same error."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.02):
            with database.write() as session:
                row = backbones.claim(session)
            if row is not None:
                with database.write() as session:
                    backbones.describe(session, row.key, row.requested_at, info=info, error=error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
