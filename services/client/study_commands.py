"""The `glora` commands about studies: `glora study submit`, `glora study ID` (a table of its trials), cancel, delete; `glora studies`."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from services.client.client import Client
from services.client.commands import Token, Url, connect, console
from services.client.request_parts import absolute, absolute_backbone, absolute_paths, given, read_settings

StudyId = Annotated[str, typer.Argument(help="Id of the study.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_COLOURS = {"succeeded": "green", "stopped": "yellow", "failed": "red", "cancelled": "yellow", "running": "cyan"}


class _ShownByItsId(TyperGroup):
    """Commands of studies, where `glora study ID` is `glora study show ID`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """What is no command is an id."""
        known = args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if known else ["show", *args])


app = typer.Typer(
    cls=_ShownByItsId,
    no_args_is_help=True,
    help="Sweep settings of a job: each trial is a job of its own. `glora study ID` shows the trials.",
)


@app.command()
def submit(
    file: Annotated[Path | None, typer.Argument(help="JSON file with the whole request; options given here win.")] = None,
    base: Annotated[Path | None, typer.Option(help="JSON file with a job request, as of `glora submit --settings`.")] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="What to sweep, perhaps several times: search.population=20,50 or, drawn, training.learning_rate=1e-4..1e-2:log. "
            "Values that are lists are JSON: 'space.ranks=[[2], [4, 8]]'."
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Draws from the ranges. Default 1.", min=1)] = None,
    max_trials: Annotated[int | None, typer.Option(help="Refuse a sweep of more. Default 50.", min=1)] = None,
    concurrency: Annotated[int | None, typer.Option(help="Trials in the queue, or running, at once. Default 4.", min=1)] = None,
    early_stop: Annotated[str | None, typer.Option(help="none (default) or asha, where settings of training are swept.")] = None,
    grace_epochs: Annotated[int | None, typer.Option(help="Epochs that asha gives every trial. Default 10.", min=1)] = None,
    reduction_factor: Annotated[float | None, typer.Option(help="One in so many goes on at each rung. Default 3.")] = None,
    name: Annotated[str | None, typer.Option(help="Name for humans; the data folder's by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws; jobs have their own. Default 0.")] = None,
    watch_it: Annotated[bool, typer.Option("--watch/--no-watch", help="Show the trials until all are over.")] = True,
    url: Url = None,
    token: Token = None,
) -> None:
    """Submit a study: a job request and what to sweep in it."""
    request = _read(file) | given(name=name, samples=samples, max_trials=max_trials, concurrency=concurrency, seed=seed)
    if base is not None:
        request["base"] = read_settings(base, "--base")
    if not isinstance(request.get("base"), dict):
        raise typer.BadParameter("give a job request with --base, or as `base` of the file", param_hint="--base")
    request["base"] = absolute_paths(request["base"])
    request["sweep"] = request.get("sweep", {}) | dict(_swept(word) for word in sweep or [])
    stop = given(rule=early_stop, grace_epochs=grace_epochs, reduction_factor=reduction_factor)
    if stop:
        request["early_stop"] = request.get("early_stop", {}) | stop
    client = connect(url, token)
    study = client.submit_study(request)
    console.print(
        f"Study {study['id']} queued: {study['counts']['all']} trials. Dashboard: {client.url}/studies/{study['id']}", soft_wrap=True
    )
    if watch_it:
        _watch(client, study["id"])


@app.command()
def show(
    study_id: StudyId,
    watch_it: Annotated[bool, typer.Option("--watch/--no-watch", help="Go on until all trials are over.")] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show a study's trials side by side."""
    client = connect(url, token)
    if watch_it and not as_json:
        _watch(client, study_id)
        return
    study = client.study(study_id)
    if as_json:
        print(json.dumps(study, indent=2))
        return
    console.print(_shown(study))


@app.command()
def cancel(study_id: StudyId, url: Url = None, token: Token = None) -> None:
    """Cancel a study, with its jobs that are not over."""
    connect(url, token).cancel_study(study_id)
    console.print(f"Study {study_id}: cancelled, with its jobs.")


@app.command()
def delete(
    study_id: StudyId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Delete a study that is over; its jobs stay."""
    if not yes:
        typer.confirm(f"Delete study {study_id}? Its jobs stay.", abort=True)
    connect(url, token).delete_study(study_id)
    console.print(f"Study {study_id}: deleted.")


def studies(
    state: Annotated[str | None, typer.Option(help="Only queued, running, succeeded, failed or cancelled ones.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=500)] = 20,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List studies, newest first."""
    rows = connect(url, token).studies(state, limit)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("id", "name", "user", "state", "swept", "trials", "created")
    for row in rows:
        created, counts = row["created_at"][:19].replace("T", " "), row["counts"]
        named = (escape(row["name"]), escape(row["user"]), row["state"], ", ".join(row["swept"]))
        table.add_row(row["id"], *named, f"{counts['done']} of {counts['all']} done", created)
    console.print(table if rows else "No studies yet. Submit one with: glora study submit --base FILE --sweep search.population=20,50")


def _watch(client: Client, study_id: str) -> None:
    """Show a study until it is over; exits with 1 if it did not succeed."""
    study: dict[str, Any] = {}
    try:
        with Live(console=console, refresh_per_second=2) as live:
            for study in client.follow_study(study_id):
                live.update(_shown(study), refresh=True)
    except KeyboardInterrupt:
        console.print(f"Study {study_id} goes on. See it again with: glora study {study_id}; end it with: glora study cancel {study_id}")
        raise
    if study["state"] != "succeeded":
        raise typer.Exit(1)


def _shown(study: dict[str, Any]) -> Group:
    """Progress, and the trials side by side: what differs, then what they reached."""
    counts = study["counts"]
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count and state not in ("all", "done"))
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=max(counts["all"], 1), completed=counts["done"], width=24), f"{counts['done']}/{counts['all']}", told)
    table = Table(
        "trial",
        *(escape(name) for name in study["swept"]),
        *("state", f"val {study['metric']}", "test", "parameters", "asked", "evaluated", "epochs", "seconds", "job"),
        title=f"{escape(study['name'])}: {study['state']}",
        caption=study["failure"]["message"] if study["failure"] else None,
    )
    for trial in study["trials"]:
        table.add_row(*_cells(study, trial), style="bold" if trial["number"] == study["best"] else None)
    return Group(bar, table)


def _cells(study: dict[str, Any], trial: dict[str, Any]) -> Iterable[str | Text]:
    yield f"{trial['number']}{' ★' if trial['number'] == study['best'] else ''}"
    for name in study["swept"]:
        value = trial["settings"][name]
        yield escape(value if isinstance(value, str) else json.dumps(value))
    state = trial["state"]
    said = state if trial["stopped_at"] is None or state != "stopped" else f"stopped after epoch {trial['stopped_at']:,}"
    yield Text(f"{state} ({trial['phase']})" if trial["phase"] and state == "running" else said, _COLOURS.get(state, ""))
    yield _figure(trial["best"], study["metric"])
    yield _figure(trial["test_accuracy"], "accuracy")
    for name in ("parameters", "asked", "evaluated", "epochs"):
        yield f"{trial[name]:,}" if trial[name] is not None else ""
    yield f"{trial['seconds']:,.0f}"
    yield trial["job"] or ""


def _figure(value: float | None, metric: str) -> str:
    """A share in percent, another metric as it is, and nothing for what was not measured."""
    return "" if value is None else f"{value:.1%}" if metric in ("accuracy", "macro-accuracy") else f"{value:.4g}"


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        found: Any = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{file} cannot be read as JSON: {error}", param_hint="FILE") from error
    if not isinstance(found, dict) or not all(isinstance(found.get(part, {}), dict) for part in ("base", "sweep", "early_stop")):
        raise typer.BadParameter(f"{file} must hold a JSON object of a study's fields", param_hint="FILE")
    return found


def _swept(word: str) -> tuple[str, dict[str, Any]]:
    """A setting and what it is swept over, from NAME=VALUE,VALUE,… or NAME=LOW..HIGH or NAME=LOW..HIGH:log."""
    name, separator, written = word.partition("=")
    refusal = typer.BadParameter(f"{word!r} is not NAME=VALUE,VALUE or NAME=LOW..HIGH or NAME=LOW..HIGH:log", param_hint="--sweep")
    if not (name and separator and written):
        raise refusal
    if written.startswith("["):
        try:
            return name, {"values": json.loads(written)}
        except ValueError as error:
            raise refusal from error
    low, _, rest = written.partition("..")
    high, colon, scale = rest.partition(":")
    try:
        ends = {"low": float(low), "high": float(high)}
    except ValueError:  # no range, perhaps paths such as ../data
        return name, {"values": [_value(name, part) for part in written.split(",")]}
    if colon and scale != "log":
        raise refusal
    return name, ends | ({"log": True} if colon else {})


_PATHS: Mapping[str, Callable[[str], str]] = {"data.path": absolute, "backbone.weights": absolute, "backbone.name": absolute_backbone}


def _value(name: str, written: str) -> Any:
    """A number, true, false or null as JSON writes it; anything else is text, a path as the service can read it."""
    try:
        return json.loads(written)
    except ValueError:
        return _PATHS.get(name, str)(written.strip())
