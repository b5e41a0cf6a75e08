"""Phase `export`: the winner merged, verified, scored once on test, and stored with its manifest."""

from typing import Any

from glora_core.configs import config_hash, encode
from glora_core.export import ADAPTER, CARD, CONFIG, MANIFEST, WEIGHTS, export_checkpoint, write_adapter, write_card, write_manifest
from glora_core.metrics import UNMEASURED, own_value
from services.cluster.alone import score_split
from services.protocol import PROTOCOL
from services.scheduler.context import RunContext
from services.scheduler.finals import Finalist, Outcome
from services.scheduler.prepare import Prepared
from services.scheduler.searching import fitness_of
from services.store import artifacts, jobs, search_state
from services.store.search_state import Fitness, evaluation_row

_KINDS = {WEIGHTS: "merged", CONFIG: "timm-config", MANIFEST: "manifest", CARD: "model-card", ADAPTER: "adapter"}


def export(context: RunContext, prepared: Prepared, outcome: Outcome) -> None:
    """Write the winner's checkpoint and end the job, in one transaction, with its result.

    Raises:
        ExportMismatch: the merged model does not compute what the unmerged one does.
    """
    baselines = [_baseline(context, prepared, finalist) for finalist in outcome.baselines]
    winner, settings, metric = outcome.winner, outcome.winner.settings, context.request.search.metric
    state = winner.state(context)
    test = _test_score(context, prepared, winner, state)
    supernet = prepared.local.supernet(settings, state)
    folder, config = context.workdir / "export", winner.fitness.config
    written = export_checkpoint(folder, supernet, config, context.data.classes, context.info.images, prepared.local.val)
    result = {
        "metric": metric,
        "winner": _summary(winner, metric) | _test(test, metric) | {"config": encode(config)},
        "finalists": [_summary(finalist, metric) for finalist in outcome.finalists],
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
    metric = context.request.search.metric
    return _summary(finalist, metric) | _test(_test_score(context, prepared, finalist, finalist.state(context)), metric)


def _test_score(context: RunContext, prepared: Prepared, finalist: Finalist, state: dict[str, Any]) -> Fitness | None:
    """The finalist's score on test, kept in SQL so that a resumed job does not touch the split again; None without one."""
    if "test" not in context.data.splits:
        return None
    config = finalist.fitness.config
    digest, metric = config_hash(config), context.request.search.metric
    with context.database.read() as session:
        row = search_state.known(session, finalist.supernet_key, "test", PROTOCOL, metric, [digest]).get(digest)
    if row is not None:
        return search_state.fitness_of(row)
    score = score_split(prepared.workload, finalist.settings, state, config, context.test, context.request.training.use_gpu)
    fitness = fitness_of(score)
    fresh = evaluation_row(finalist.supernet_key, "test", PROTOCOL, metric, digest, encode(config), finalist.fitness.parameters, fitness)
    with context.fenced() as (session, _):
        search_state.add_evaluations(session, [fresh])
    return fitness


def _test(score: Fitness | None, metric: str) -> dict[str, Any]:
    return {
        "test_accuracy": score and score.accuracy,
        "test_macro_accuracy": score and score.macro_accuracy,
        "test_metric": score and _value(metric, score.fitness),
        "test_loss": score and score.loss,
        "test_examples": score and score.examples,
    }


def _value(metric: str, fitness: float) -> float | None:
    """The metric's own value, None if it has none."""
    return None if fitness == UNMEASURED else own_value(metric, fitness)


def _summary(finalist: Finalist, metric: str) -> dict[str, Any]:
    return {
        "source": finalist.source,
        "hash": config_hash(finalist.fitness.config),
        "parameters": finalist.fitness.parameters,
        "val_accuracy": finalist.fitness.accuracy,
        "val_macro_accuracy": finalist.fitness.macro_accuracy,
        "val_metric": _value(metric, finalist.fitness.fitness),
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
        "metrics": {k: v for k, v in result["winner"].items() if k.startswith(("val_", "test_"))}
        | {"metric": request.search.metric, "protocol": PROTOCOL},
        "merge_error": result["merge_error"],
        "request": request.model_dump(mode="json"),
    }
