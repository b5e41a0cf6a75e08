"""Phase `export`: the winner merged, verified, scored once on every test set, and stored with its manifest."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from glora_core.configs import config_hash, encode
from glora_core.evaluation import Score
from glora_core.export import ADAPTER, CARD, CONFIG, MANIFEST, WEIGHTS, export_checkpoint, write_adapter, write_card, write_manifest
from services.protocol import PROTOCOL
from services.scheduler.context import RunContext
from services.scheduler.finals import Outcome
from services.scheduler.legs import Finalist, trained_alone
from services.scheduler.prepare import Prepared
from services.scheduler.testing import score_tests
from services.store import artifacts, jobs

_KINDS = {WEIGHTS: "merged", CONFIG: "timm-config", MANIFEST: "manifest", CARD: "model-card", ADAPTER: "adapter"}


def export(context: RunContext, prepared: Prepared, outcome: Outcome) -> None:
    """Write the winner's checkpoint and end the job, in one transaction, with its result.

    Raises:
        ExportMismatch: the merged model does not compute what the unmerged one does.
    """
    winner, settings = outcome.winner, outcome.winner.settings
    state = winner.state(context)
    scores, *others = score_tests(context, prepared, [winner, *outcome.baselines])
    supernet = prepared.local.supernet(settings, state)
    folder, config = context.workdir / "export", winner.fitness.config
    written = export_checkpoint(folder, supernet, config, context.data.classes, context.info.images, prepared.local.val)
    result = {
        "winner": _summary(winner) | _test(scores) | {"config": encode(config)},
        "finalists": [_summary(finalist) for finalist in outcome.finalists],
        "baselines": [_summary(finalist) | _test(found) for finalist, found in zip(outcome.baselines, others, strict=True)],
        "merge_error": written.merge_error,
    }
    manifest = write_manifest(folder, supernet, config, _facts(context, prepared, result))
    write_card(folder, manifest, supernet.space, config)
    write_adapter(folder / ADAPTER, supernet, config, context.data.classes)
    rows = [artifacts.stored(context.blobs, folder / name, kind, context.lease.job_id) for name, kind in _KINDS.items()]
    with context.fenced() as (session, job):
        session.add_all(rows)
        jobs.succeed(session, job, result)


def _test(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Scores on test, None without such a split, and on further test sets by name."""
    test = scores.get("test")
    also = {name: asdict(score) for name, score in scores.items() if name != "test"}
    return {"test_accuracy": test and test.accuracy, "test_loss": test and test.loss, "test_examples": test and test.examples} | {
        "also_test": also
    }


def _summary(finalist: Finalist) -> dict[str, Any]:
    return {
        "source": finalist.source,
        "hash": config_hash(finalist.fitness.config),
        "parameters": finalist.fitness.parameters,
        "val_accuracy": finalist.fitness.accuracy,
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
        "budget": request.budget,
        "seed": request.seed,
        "metrics": {k: v for k, v in result["winner"].items() if k.startswith(("val_", "test_", "also_"))} | {"protocol": PROTOCOL},
        "merge_error": result["merge_error"],
        "request": request.model_dump(mode="json"),
    }
