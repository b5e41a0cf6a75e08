"""A finished job's result as tables for a terminal."""

from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

_SHARES = ("accuracy", "macro-accuracy")


def result_tables(job: dict[str, Any]) -> Group:
    """Parameters, accuracy, macro accuracy and any other metric searched for, of the baselines, if any, and of the job's winner.

    Further test sets have a table of their own, a row each, with accuracy alone: as columns they would not fit a terminal.
    """
    title = f"{escape(job['name'])}, within {job['request']['budget']:,} trainable parameters"
    result = job["result"]
    metric = result.get("metric", "accuracy")
    shown = {"accuracy": "", "macro_accuracy": " macro"} | ({} if metric in _SHARES else {"metric": " metric"})
    caption = f"The searched checkpoint is {_origin(job)}.{_grown(result.get('made_from'))}" + (
        f" The metric is {metric}." if "metric" in shown else ""
    )
    heads = [f"{split}{label}" for split in ("val", "test") for label in shown.values()]
    table = Table("method", "parameters", *heads, title=title, min_width=56, caption=caption)
    rows = [(_baseline(entry), entry) for entry in result["baselines"]] + [("searched GLoRA", result["winner"])]
    if result.get("retrained"):
        rows.append((f"the same on {result['retrained']['split']}", result["retrained"] | {"parameters": result["winner"]["parameters"]}))
    for label, entry in rows:
        cells = [_figure(key, entry.get(f"{split}_{key}")) for split in ("val", "test") for key in shown]
        table.add_row(label, f"{entry['parameters']:,}", *cells)
    further = Table("test set", *(label for label, _ in rows), title="Accuracy on further test sets", min_width=56)
    for name in result["winner"].get("also_test", {}):
        further.add_row(name, *(_figure("accuracy", entry["also_test"][name]["accuracy"]) for _, entry in rows))
    return Group(table, further) if further.rows else Group(table)


def _figure(key: str, value: float | None) -> str:
    """A share in percent, another metric as it is, and nothing for what was not measured."""
    return "" if value is None else f"{value:.4f}" if key == "metric" else f"{value:.1%}"


def _baseline(entry: dict[str, Any]) -> str:
    """A baseline's name, which may stand for itself trained alone or for a subnet of the job's supernet."""
    return str(entry["source"]) + ("" if "epochs" in entry else ", in supernet")


def _grown(made_from: dict[str, Any] | None) -> str:
    """How an extended search grew, in words; empty for others."""
    if made_from is None or made_from["action"] != "extend":
        return ""
    return (
        f" The search went on from generation {made_from['inherited_generations']} of job {made_from['job']} to {made_from['generations']}."
    )


def _origin(job: dict[str, Any]) -> str:
    """Where a job's winner comes from, in words."""
    winner = job["result"]["winner"]
    members = winner.get("members")
    if members:
        named = "; ".join(_finalist(member) for member in members)
        return f"the soup of {len(members)} finalists, each within the budget, {winner['parameters']:,} parameters in all: {named}"
    return _finalist(winner)


def _finalist(winner: dict[str, Any]) -> str:
    """A finalist, or the search's own winner, in words."""
    source = str(winner["source"])
    if source == "search":
        return "the best candidate of the search"
    named = f"candidate {source.removeprefix('search ')} of the search" if source.startswith("search ") else f"the known method {source}"
    if not winner.get("epochs"):
        return f"{named}, as it stands in the supernet"
    start = "from scratch" if winner["start"] == "scratch" else "from the supernet"
    return f"{named}, trained alone {start} for {winner['epochs']:,} epochs at rate {winner['learning_rate']:.3g}"
