"""Phase `export`: the winner merged, verified, scored once on every test set, and stored with its manifest."""

from collections.abc import Mapping
from typing import Any

from glora_core.configs import config_hash, encode
from glora_core.export import ADAPTER, CARD, CONFIG, MANIFEST, WEIGHTS, export_checkpoint, write_adapter, write_card, write_manifest
from glora_core.metrics import UNMEASURED, own_value
from services.protocol import PROTOCOL
from services.scheduler.context import RunContext
from services.scheduler.finals import Outcome
from services.scheduler.legs import Finalist, trained_alone
from services.scheduler.prepare import Prepared
from services.scheduler.testing import score_tests
from services.store import artifacts, jobs
from services.store.search_state import Fitness

_KINDS = {WEIGHTS: "merged", CONFIG: "timm-config", MANIFEST: "manifest", CARD: "model-card", ADAPTER: "adapter"}


def export(context: RunContext, prepared: Prepared, outcome: Outcome) -> None:
    """Write the winner's checkpoint and end the job, in one transaction, with its result.

    Raises:
        ExportMismatch: the merged model does not compute what the unmerged one does.
    """
    winner, settings, metric = outcome.winner, outcome.winner.settings, context.request.search.metric
    state = winner.state(context)
    scores, *others = score_tests(context, prepared, [winner, *outcome.baselines])
    supernet = prepared.local.supernet(settings, state)
    folder, config = context.workdir / "export", winner.fitness.config
    written = export_checkpoint(folder, supernet, config, context.data.classes, context.info.images, prepared.local.val)
    result = {
        "metric": metric,
        "winner": _summary(winner, metric) | _test(scores, metric) | {"config": encode(config)},
        "finalists": [_summary(finalist, metric) for finalist in outcome.finalists],
        "baselines": [_summary(finalist, metric) | _test(found, metric) for finalist, found in zip(outcome.baselines, others, strict=True)],
        "merge_error": written.merge_error,
        "made_from": _made_from(context),
    }
    manifest = write_manifest(folder, supernet, config, _facts(context, prepared, result))
    write_card(folder, manifest, supernet.space, config)
    write_adapter(folder / ADAPTER, supernet, config, context.data.classes)
    rows = [artifacts.stored(context.blobs, folder / name, kind, context.lease.job_id) for name, kind in _KINDS.items()]
    with context.fenced() as (session, job):
        session.add_all(rows)
        jobs.succeed(session, job, result)


def _made_from(context: RunContext) -> dict[str, Any] | None:
    """The job that this one was made from; of an extended one also how the search grew."""
    origin = context.origin
    if origin is None:
        return None
    grown = {"inherited_generations": origin.inherited, "generations": context.request.search.generations}
    return {"job": origin.job, "action": origin.action, **(grown if origin.action == "extend" else {})}


def _test(scores: Mapping[str, Fitness], metric: str) -> dict[str, Any]:
    """Scores on test, None without such a split, and on further test sets by name."""
    test, also = scores.get("test"), {name: _measured(score, metric) for name, score in scores.items() if name != "test"}
    names = ("accuracy", "macro_accuracy", "metric", "loss", "examples")
    own = dict.fromkeys(names) if test is None else _measured(test, metric)
    return {f"test_{name}": value for name, value in own.items()} | {"also_test": also}


def _measured(score: Fitness, metric: str) -> dict[str, Any]:
    """What was measured on a test set."""
    return {
        "accuracy": score.accuracy,
        "macro_accuracy": score.macro_accuracy,
        "metric": _value(metric, score.fitness),
        "loss": score.loss,
        "examples": score.examples,
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
        **(trained_alone(finalist.leg) if finalist.leg else {}),
    }


def _facts(context: RunContext, prepared: Prepared, result: dict[str, Any]) -> dict[str, Any]:
    """The manifest's part that only the service knows."""
    request, transform = context.request, context.info.to_dict()["transform"]
    return {
        "job": context.lease.job_id,
        "backbone": request.backbone.model_dump() | {"weights_sha256": prepared.weights_hash, "license": context.info.license},
        "transform": transform,
        "data": {name: fact for name, fact in context.data_facts.items() if name != "classes"},
        "made_from": result["made_from"],
        "budget": request.budget,
        "seed": request.seed,
        "metrics": {k: v for k, v in result["winner"].items() if k.startswith(("val_", "test_", "also_"))}
        | {"metric": request.search.metric, "protocol": PROTOCOL},
        "merge_error": result["merge_error"],
        "request": request.model_dump(mode="json"),
    }
