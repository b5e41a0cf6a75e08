"""Phase `export`: the winner, or the soup, merged, verified, scored once on every test set, and stored with its manifest."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glora_core.configs import SubnetConfig
from glora_core.data.readers import Reader
from glora_core.export import (
    ADAPTER,
    CARD,
    CONFIG,
    MANIFEST,
    WEIGHTS,
    Export,
    export_checkpoint,
    export_soup,
    write_adapter,
    write_card,
    write_manifest,
    write_soup_manifest,
)
from glora_core.supernet import Supernet
from services.job_request import JobRequest
from services.protocol import PROTOCOL, protocol
from services.scheduler import reporting
from services.scheduler.context import RunContext
from services.scheduler.finals import Outcome
from services.scheduler.legs import Finalist
from services.scheduler.prepare import Prepared
from services.scheduler.soups import Soup
from services.scheduler.testing import score_tests
from services.store import artifacts, jobs

_KINDS = {WEIGHTS: "merged", MANIFEST: "manifest", CARD: "model-card", ADAPTER: "adapter"}


def export(context: RunContext, prepared: Prepared, outcome: Outcome) -> None:
    """Write the checkpoint and end the job, in one transaction, with its result.

    Raises:
        ExportMismatch: the merged model does not compute what the unmerged one does.
    """
    folder, chosen = context.workdir / "export", outcome.retrained or outcome.soup or outcome.winner
    result = _measured(context, prepared, outcome)
    result["merge_error"] = _write(folder, context, prepared, chosen).merge_error
    _describe(folder, context, prepared, chosen, _facts(context, prepared, result))
    rows = [artifacts.stored(context.blobs, path, kind, context.lease.job_id) for path, kind in _files(folder, context.reader)]
    with context.fenced() as (session, job):
        session.add_all(rows)
        jobs.succeed(session, job, result)


def _files(folder: Path, reader: Reader) -> Iterator[tuple[Path, str]]:
    """What was written, the checkpoint first, and what each file is; what nothing else is goes with the tokenizer."""
    config = "transformers-config" if reader.transform is None else "timm-config"
    kinds = _KINDS | {CONFIG: config}
    for name in (WEIGHTS, CONFIG, MANIFEST, CARD, ADAPTER, *sorted({path.name for path in folder.iterdir()} - kinds.keys())):
        if (folder / name).is_file():
            yield folder / name, kinds.get(name, "tokenizer")


def _made_from(context: RunContext) -> dict[str, Any] | None:
    """The job that this one was made from; of an extended one also how the search grew."""
    origin = context.origin
    if origin is None:
        return None
    grown = {"inherited_generations": origin.inherited, "generations": context.request.search.generations}
    return {"job": origin.job, "action": origin.action, **(grown if origin.action == "extend" else {})}


def _measured(context: RunContext, prepared: Prepared, outcome: Outcome) -> dict[str, Any]:
    """The job's result but for what the export measures; test sets are scored here, and nowhere else."""
    metric, chosen, again = context.request.search.metric, outcome.soup or outcome.winner, outcome.retrained
    models = [chosen, *([again] if again else []), *outcome.baselines]
    scores, *others = score_tests(context, prepared, models)
    result = {
        "metric": metric,
        "made_from": _made_from(context),
        "second": _second(context, prepared),
        "winner": reporting.winner(chosen, metric) | reporting.on_tests(scores, metric),
        "retrained": None,
        "finalists": [reporting.summary(finalist, metric) for finalist in outcome.finalists],
    }
    if again:
        result["retrained"] = reporting.retrained(again, others.pop(0), metric, len(context.data.examples("train+val")))
    rows = zip(outcome.baselines, others, strict=True)
    result["baselines"] = [reporting.summary(finalist, metric) | reporting.on_tests(found, metric) for finalist, found in rows]
    return result


def _second(context: RunContext, prepared: Prepared) -> dict[str, Any] | None:
    """Which test set took part in the selection by a part of it, and how large that and the part reported on are."""
    name = context.request.search.second
    if name is None or prepared.local.second is None:
        return None
    return {"set": name, "selection": len(prepared.local.second.examples), "report": len(context.also_tests[name].splits["test"])}


def _write(folder: Path, context: RunContext, prepared: Prepared, chosen: Finalist | Soup) -> Export:
    """Weights and config file, verified before; the members of a soup are in memory one at a time."""
    classes, reader, val = context.data.classes, context.reader, prepared.local.val
    if isinstance(chosen, Soup):
        return export_soup(folder, _nets(context, prepared, chosen), classes, reader.transform, val, reader.tokenizer)
    ((supernet, config),) = _nets(context, prepared, chosen)
    return export_checkpoint(folder, supernet, config, classes, reader.transform, val, reader.tokenizer)


def _describe(folder: Path, context: RunContext, prepared: Prepared, chosen: Finalist | Soup, facts: dict[str, Any]) -> None:
    """Manifest and model card, and, of a single subnet, its adapter."""
    if isinstance(chosen, Soup):
        members = [(supernet.space, config) for supernet, config in _nets(context, prepared, chosen)]
        write_card(folder, write_soup_manifest(folder, members, facts), *members[0])
        return
    ((supernet, config),) = _nets(context, prepared, chosen)
    write_card(folder, write_manifest(folder, supernet, config, facts), supernet.space, config)
    write_adapter(folder / ADAPTER, supernet, config, context.data.classes)


def _nets(context: RunContext, prepared: Prepared, chosen: Finalist | Soup) -> Iterator[tuple[Supernet, SubnetConfig]]:
    """Each member's supernet and config, or the one finalist's."""
    for member in chosen.members if isinstance(chosen, Soup) else (chosen,):
        yield prepared.local.supernet(member.settings, member.state(context)), member.fitness.config


def _facts(context: RunContext, prepared: Prepared, result: dict[str, Any]) -> dict[str, Any]:
    """The manifest's part that only the service knows."""
    request = context.request
    return {
        "job": context.lease.job_id,
        "backbone": request.backbone.model_dump() | {"weights_sha256": prepared.weights_hash, "license": context.info.license},
        "transform": None,
        **{name: fact for name, fact in context.reader.recipe().items() if name in ("transform", "text")},
        "data": {name: fact for name, fact in context.data_facts.items() if name != "classes"},
        "made_from": result["made_from"],
        "second": result["second"],
        "budget": request.budget,
        "seed": request.seed,
        "metrics": _metrics(result)
        | {"metric": request.search.metric, "protocol": PROTOCOL, "val_protocol": _val_protocol(request, result["winner"]["source"])},
        "baselines": result["baselines"],
        "merge_error": result["merge_error"],
        "request": request.model_dump(mode="json"),
    }


def _metrics(result: dict[str, Any]) -> dict[str, Any]:
    """What was measured of what is exported; of one that was trained on val too, what it had reached `before` stands apart."""
    found, again = (_scores(result[name] or {}) for name in ("winner", "retrained"))
    return again | {"trained_on": result["retrained"]["split"], "before": found} if again else found


def _scores(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name.startswith(("val_", "test_", "also_"))}


def _val_protocol(request: JobRequest, source: str) -> str:
    """How the winner was measured on val: as the search does, if it has not been trained alone since."""
    return protocol(request.search.precision) if source == "search" else PROTOCOL
