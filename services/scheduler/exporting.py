"""Phase `export`: the winner merged, verified, scored once on test, and stored with its manifest."""

from typing import Any

from glora_core.configs import config_hash, encode
from glora_core.export import ADAPTER, CARD, CONFIG, MANIFEST, WEIGHTS, export_checkpoint, write_adapter, write_card, write_manifest
from services.cluster.alone import score_split
from services.protocol import PROTOCOL
from services.scheduler.context import RunContext
from services.scheduler.finals import Finalist, Outcome
from services.scheduler.prepare import Prepared
from services.store import artifacts, jobs, search_state
from services.store.search_state import Fitness, evaluation_row

_KINDS = {WEIGHTS: "merged", CONFIG: "timm-config", MANIFEST: "manifest", CARD: "model-card", ADAPTER: "adapter"}


def export(context: RunContext, prepared: Prepared, outcome: Outcome) -> None:
    """Write the winner's checkpoint and end the job, in one transaction, with its result.

    Raises:
        ExportMismatch: the merged model does not compute what the unmerged one does.
    """
    baselines = [_baseline(context, prepared, finalist) for finalist in outcome.baselines]
    winner, settings = outcome.winner, outcome.winner.settings
    state = winner.state(context)
    test = _test_score(context, prepared, winner, state)
    supernet = prepared.local.supernet(settings, state)
    folder, config = context.workdir / "export", winner.fitness.config
    written = export_checkpoint(folder, supernet, config, context.data.classes, context.info.images, prepared.local.val)
    result = {
        "winner": _summary(winner) | _test(test) | {"config": encode(config)},
        "finalists": [_summary(finalist) for finalist in outcome.finalists],
        "baselines": baselines,
        "merge_error": written.merge_error,
    }
    manifest = write_manifest(folder, supernet, config, _facts(context, prepared, result))
    write_card(folder, manifest, supernet.space, config)
    write_adapter(folder / ADAPTER, supernet, config, context.data.classes)
    rows = [artifacts.stored(context.blobs, folder / name, kind, context.lease.job_id) for name, kind in _KINDS.items()]
    with context.fenced() as (session, job):
        session.add_all(rows)
        jobs.succeed(session, job, result)


def _baseline(context: RunContext, prepared: Prepared, finalist: Finalist) -> dict[str, Any]:
    return _summary(finalist) | _test(_test_score(context, prepared, finalist, finalist.state(context)))


def _test_score(context: RunContext, prepared: Prepared, finalist: Finalist, state: dict[str, Any]) -> Fitness | None:
    """The finalist's score on test, kept in SQL so that a resumed job does not touch the split again; None without one."""
    if "test" not in context.data.splits:
        return None
    config = finalist.fitness.config
    digest = config_hash(config)
    with context.database.read() as session:
        row = search_state.known(session, finalist.supernet_key, "test", PROTOCOL, [digest]).get(digest)
    if row is not None:
        return Fitness(row.accuracy, row.loss, row.examples)
    score = score_split(prepared.workload, finalist.settings, state, config, context.test, context.request.training.use_gpu)
    fitness = Fitness(score.accuracy, score.loss, score.examples)
    fresh = evaluation_row(finalist.supernet_key, "test", PROTOCOL, digest, encode(config), finalist.fitness.parameters, fitness)
    with context.fenced() as (session, _):
        search_state.add_evaluations(session, [fresh])
    return fitness


def _test(score: Fitness | None) -> dict[str, Any]:
    return {"test_accuracy": score and score.accuracy, "test_loss": score and score.loss, "test_examples": score and score.examples}


def _summary(finalist: Finalist) -> dict[str, Any]:
    return {
        "source": finalist.source,
        "hash": config_hash(finalist.fitness.config),
        "parameters": finalist.fitness.parameters,
        "val_accuracy": finalist.fitness.accuracy,
        "val_loss": finalist.fitness.loss,
        "supernet": finalist.supernet_key,
    }


def _facts(context: RunContext, prepared: Prepared, result: dict[str, Any]) -> dict[str, Any]:
    """The manifest's part that only the service knows."""
    request, transform = context.request, context.info.to_dict()["transform"]
    return {
        "job": context.lease.job_id,
        "backbone": request.backbone.model_dump() | {"weights_sha256": prepared.weights_hash, "license": context.info.license},
        "transform": transform,
        "data": {"fingerprint": context.data_facts["fingerprint"], "splits": context.data_facts["splits"]},
        "budget": request.budget,
        "seed": request.seed,
        "metrics": {k: v for k, v in result["winner"].items() if k.startswith(("val_", "test_"))} | {"protocol": PROTOCOL},
        "merge_error": result["merge_error"],
        "request": request.model_dump(mode="json"),
    }
