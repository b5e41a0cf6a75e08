"""How the pages put things: numbers, times, names and events in words.

Pure functions from stored values to text; templates use them as filters. Nothing here escapes anything: templates do.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from glora_core.finals import FinalsSettings

_SOURCES = {
    "search": "Search’s best",
    "linear-probe": "Linear probe",
    "bitfit": "BitFit",
    "ssf": "SSF",
    "lora": "LoRA",
}
_REASONS = {
    "data_invalid": "The data set cannot be used",
    "backbone_unavailable": "The backbone's weights are out of reach",
    "budget_infeasible": "No subnet fits the budget",
    "diverged": "Training diverged",
    "not_learning": "The supernet does not learn",
    "export_mismatch": "The merged checkpoint does not match the searched model",
    "artifact_missing": "A stored file is missing",
    "artifact_unavailable": "The artifact store was out of reach, or a disk full",
    "out_of_memory": "Out of memory",
    "worker_lost": "A worker was lost",
    "node_lost": "A machine of the cluster was lost",
    "cluster_unavailable": "The Ray cluster was out of reach",
    "resources_unavailable": "The cluster lacks what the job asks for",
    "inputs_changed": "What the job began with has changed",
    "runner_lost": "The job's process was lost",
    "database_unavailable": "The database was out of reach",
    "time_exceeded": "The job ran for as long as it may",
    "internal_error": "Something unexpected went wrong",
}
_KINDS = {
    "merged": "Merged checkpoint",
    "timm-config": "timm config",
    "transformers-config": "transformers config",
    "tokenizer": "Tokenizer",
    "manifest": "Manifest",
    "model-card": "Model card",
    "adapter": "Adapter only",
    "supernet": "Trained support tensors",
    "finalist": "Support tensors of a finalist",
}
_TITLES = {
    "queued": "Queued",
    "started": "Started",
    "resumed": "Resumed",
    "phase": "Phase",
    "estimate": "Expected",
    "epoch": "Epoch",
    "made_from": "Made from",
    "study": "Trial of a study",
    "supernet_awaited": "Supernet awaited",
    "supernet_found": "Supernet found",
    "room_awaited": "Room awaited",
    "room_found": "Room found",
    "generation": "Generation",
    "finals": "Finals",
    "finalist": "Finalist",
    "finalist_diverged": "Finalist diverged",
    "soup": "Soup",
    "soup_tested": "Soup tested",
    "cancel_requested": "Cancel requested",
    "retrained": "Trained again",
    "pause_requested": "Pause requested",
    "paused": "Paused",
    "resume_requested": "Resume requested",
    "requeued": "Requeued",
    "succeeded": "Succeeded",
    "failed": "Failed",
    "cancelled": "Cancelled",
}


def percent(value: float | None) -> str:
    """A share of 1 as percent with one decimal; a dash for nothing."""
    return "–" if value is None else f"{value * 100:.1f}%"


def points(value: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    rounded = round(value * 100, 1)
    return "±0.0" if rounded == 0 else f"{rounded:+.1f}".replace("-", "−")


def thousands(value: float | None) -> str:
    """A whole number with separators; a dash for nothing."""
    return "–" if value is None else f"{value:,.0f}"


def decimals(value: float | None) -> str:
    """A loss: four significant digits; a dash for nothing."""
    return "–" if value is None else f"{value:.4g}"


def size(value: int) -> str:
    """Bytes in decimal units."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float | None) -> str:
    """A span of time in its two largest units; a dash for nothing. `page.js` words running ones the same way."""
    if seconds is None:
        return "–"
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def roughly(seconds: float) -> str:
    """An estimate, in one unit, since more digits would promise too much."""
    if seconds < 60:
        return "less than a minute"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h" if seconds < 172800 else f"about {round(seconds / 86400)} days"


def iso(moment: datetime) -> str:
    """A point in time for machines, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc(moment: datetime) -> str:
    """A point in time for humans whose browser does not localise it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def value(setting: object) -> str:
    """A setting's value: text as it is, anything else as JSON has it."""
    return setting if isinstance(setting, str) else json.dumps(setting)


def source(name: str) -> str:
    """A finalist's source: a place in the search, or a known method by its usual name."""
    return _SOURCES.get(name, name[:1].upper() + name[1:])


def finalist(data: Mapping[str, Any]) -> str:
    """A finalist of a result or an event: its source, and the learning rate it was trained alone at; or a soup of several."""
    if data.get("members"):
        return f"Soup of {len(data['members'])} finalists"
    named, rate = source(str(data.get("source"))), data.get("learning_rate")
    return named if rate is None else f"{named}, rate {rate:.3g}"


def finals(settings: FinalsSettings) -> str:
    """How a job's finals go."""
    if settings.mode == "off":
        return "off"
    several = f"best {settings.candidates}{' (LoRA the last of them, if it fits)' if settings.candidates > 1 else ''}"
    who = "the search’s winner" if settings.mode == "winner" else several
    numbers = (settings.learning_rates, settings.epochs, settings.scratch_epochs)
    rates, epochs, again = (", ".join(f"{value:.3g}" for value in values) for values in numbers)
    scratch = f"; known methods from scratch in rungs of {again}" if settings.mode == "thorough" and again else ""
    standing = f"; {settings.standing} as they stand in the supernet" if settings.standing else ""
    taught = f", half taught by the average of the best {settings.teachers}" if settings.teachers else ""
    taught += " in all but the last" if taught and len(settings.epochs) > 1 else ""
    last = len(settings.epochs)
    afresh = ", the last from scratch" if settings.afresh_in(last) else ""
    cycles = f", the last in {settings.cycles} cycles" if settings.cycles_of(last) > 1 else ""
    return f"{who} trained alone at rates {rates}, in rungs of {epochs} epochs{afresh}{cycles}{taught}{scratch}{standing}"


def extended(made_from: Mapping[str, Any] | None) -> str:
    """How an extended job's search grew; empty for other jobs."""
    if made_from is None or made_from.get("action") != "extend":
        return ""
    before, after = thousands(made_from["inherited_generations"]), thousands(made_from["generations"])
    return f"The search went on from generation {before} of job {made_from['job']} to {after}."


def trained(data: Mapping[str, Any]) -> str:
    """How long a finalist was trained alone, and from what."""
    epochs = data.get("epochs")
    if data.get("members"):
        return "their average"
    if not epochs:
        return "as in the supernet"
    return f"{thousands(epochs)} epochs {'from scratch' if data.get('start') == 'scratch' else 'from the supernet'}"


def reason(code: str) -> str:
    """A failure's typed reason as a headline."""
    return _REASONS.get(code, code.replace("_", " ").capitalize())


def artifact(kind: str) -> str:
    """What an artifact is."""
    return _KINDS.get(kind, kind)


def event_title(kind: str) -> str:
    """An event's kind in words."""
    return _TITLES.get(kind, kind.replace("_", " ").capitalize())


def event_text(kind: str, data: Mapping[str, Any]) -> str:
    """What an event says beyond its kind; empty if nothing. Unknown kinds show their data as it is."""
    match kind:
        case "queued" | "started" | "resumed" | "cancel_requested" | "succeeded" | "pause_requested" | "paused" | "resume_requested":
            return ""
        case "room_found":
            return ""
        case "cancelled" | "room_awaited":
            return str(data.get("message", ""))
        case "study":
            return f"trial {data.get('trial')} of {data.get('study')}"
        case "phase":
            return str(data.get("phase", ""))
        case "estimate":
            left = "" if not data.get("over") else f", {data.get('left')} left"
            return f"{data.get('text')}{left}"
        case "epoch":
            return f"{data.get('epoch')} of {data.get('epochs')}, loss {decimals(data.get('loss'))}"
        case "supernet_found":
            return "trained by another job, nothing to train"
        case "supernet_awaited":
            return f"job {data.get('job')} is training it"
        case "made_from":
            return f"{data.get('job')}, {data.get('action')}"
        case "generation":
            best, fresh, cached = percent(data.get("best_accuracy")), data.get("evaluated"), data.get("from_cache")
            return f"{int(data.get('generation', 0)) + 1}: best so far {best}{_fitness(data)}, {fresh} evaluated, {cached} from cache"
        case "finals":
            done = f"{data.get('done')} of {data.get('finalists')} done"
            return f"rung {data.get('rung')} of {data.get('rungs')}, {data.get('missing')} to train, {done}"
        case "finalist":
            reached, parameters = percent(data.get("accuracy")), thousands(data.get("parameters"))
            return f"{finalist(data)}: {reached} after {trained(data)}, {parameters} parameters"
        case "finalist_diverged":
            return f"{finalist(data)}: {data.get('message')}"
        case "soup":
            return soup(data)
        case "soup_tested":
            return str(data.get("set"))
        case "retrained":
            return f"{finalist(data)}: {trained(data)}, on {data.get('split')}"
        case "requeued":
            if "supernet" in data:
                return f"until job {data.get('job')} has trained their supernet; its place is free for others"
            if "reason" in data:
                return f"{reason(str(data['reason']))}: {data.get('message')}; tried again in {duration(data.get('wait_seconds'))}"
            return (
                f"after {data.get('attempts')} failed attempts"
                if data.get("attempts")
                else "the service stopped; the job resumes where it was"
            )
        case "failed":
            return f"{reason(str(data.get('reason')))}: {data.get('message')}"
        case _:
            return ", ".join(f"{key} {value}" for key, value in data.items())


def soup(data: Mapping[str, Any]) -> str:
    """What came of averaging finalists, from its event."""
    members = [finalist(member) for member in data.get("finalists", [])]
    if len(members) < 2:
        return f"no average of {len(data.get('asked', []))} finalists is better on val than the best of them"
    return f"{percent(data.get('accuracy'))} with the average of {'; '.join(members)}"


def _fitness(data: Mapping[str, Any]) -> str:
    """The fitness of a generation's best, where it is another number than the accuracy."""
    fitness = data.get("best_fitness")
    return "" if fitness is None or fitness == data.get("best_accuracy") else f" (fitness {decimals(fitness)})"
