"""The `glora` commands that change a job that is there, or make another from it, and the report of what its cache saved.

pause, resume, extend, fork, clone, delete, cache.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from services.client.client import Client
from services.client.commands import JobId, Token, Url, connect, console, watch_job
from services.client.request_parts import given, merge, read_settings

Name = Annotated[str | None, typer.Option(help="Name for humans; that of the job it is made from by default.")]
Watch = Annotated[bool, typer.Option("--watch/--no-watch", help="Show progress until the new job is over.")]
Fields = Annotated[Path | None, typer.Option(help="JSON file with fields that change; options given here win.")]
Budget = Annotated[str | None, typer.Option(help="Another upper bound on trainable parameters: 100000, 100k, 1.5M.")]
Strategy = Annotated[str | None, typer.Option(help="evolution, random, nsga2, regularized-evolution or surrogate.")]
Metric = Annotated[str | None, typer.Option(help="What to search for instead: accuracy, macro-accuracy, or a torchmetrics class.")]
Population = Annotated[int | None, typer.Option(help="Candidates per generation.")]
Generations = Annotated[int | None, typer.Option(help="Generations.")]


def cache(
    job_id: JobId,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show how many candidates a job's search asked for, and how many of them were known already."""
    job = connect(url, token).job(job_id)
    report = job["cache"]
    if as_json:
        print(json.dumps(report, indent=2))
        return
    share = f" ({report['from_cache'] / report['asked']:.1%})" if report["asked"] else ""
    console.print(f"asked      {report['asked']:>9,}", highlight=False)
    console.print(f"from cache {report['from_cache']:>9,}{share}", highlight=False)
    console.print(f"evaluated  {report['evaluated']:>9,}", highlight=False)
    if report["inherited"]:
        console.print(f"taken over {report['inherited']:>9,} from job {job['lineage']['job']}", highlight=False)


def pause(job_id: JobId, url: Url = None, token: Token = None) -> None:
    """Pause a job: it finishes and stores what it has in hand, then frees the cluster."""
    job = connect(url, token).pause(job_id)
    console.print(f"Job {job_id}: {'paused' if job['state'] == 'paused' else 'pausing'}. Go on with: glora resume {job_id}", soft_wrap=True)


def resume(job_id: JobId, url: Url = None, token: Token = None) -> None:
    """Put a paused job back into the queue; it goes on where it was."""
    connect(url, token).resume(job_id)
    console.print(f"Job {job_id}: back in the queue.")


def extend(
    job_id: JobId,
    generations: Annotated[int, typer.Argument(help="So many more generations.", min=1)],
    name: Name = None,
    watch_it: Watch = True,
    url: Url = None,
    token: Token = None,
) -> None:
    """Go on with a finished search: a new job starts from all generations of a succeeded one."""
    client = connect(url, token)
    _follow(client, client.extend(job_id, generations, **given(name=name)), watch_it)


def fork(
    job_id: JobId,
    budget: Budget = None,
    strategy: Strategy = None,
    metric: Metric = None,
    seed: Annotated[int | None, typer.Option(help="Another seed of the search's draws; the supernet keeps its own.")] = None,
    population: Population = None,
    generations: Generations = None,
    name: Name = None,
    settings: Fields = None,
    watch_it: Watch = True,
    url: Url = None,
    token: Token = None,
) -> None:
    """Search the supernet of a job in another way; the new job starts searching at once."""
    changes = read_settings(settings) | given(name=name, budget=budget, seed=seed)
    merge(changes, "search", given(strategy=strategy, metric=metric, population=population, generations=generations))
    client = connect(url, token)
    _follow(client, client.fork(job_id, **changes), watch_it)


def clone(
    job_id: JobId,
    budget: Budget = None,
    seed: Annotated[int | None, typer.Option(help="Another seed of everything random.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of supernet training.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    strategy: Strategy = None,
    metric: Metric = None,
    population: Population = None,
    generations: Generations = None,
    name: Name = None,
    settings: Fields = None,
    watch_it: Watch = True,
    url: Url = None,
    token: Token = None,
) -> None:
    """Submit a job once more, with changes; what its supernet and evaluations have in common with the first is found again."""
    changes = read_settings(settings) | given(name=name, budget=budget, seed=seed)
    merge(changes, "training", given(epochs=epochs, learning_rate=learning_rate))
    merge(changes, "search", given(strategy=strategy, metric=metric, population=population, generations=generations))
    client = connect(url, token)
    _follow(client, client.clone(job_id, **changes), watch_it)


def delete(
    job_id: JobId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Delete a job that is over, with its files; supernets and evaluations stay for other jobs.

    The files' bytes go with the next `glora admin gc`.
    """
    if not yes:
        typer.confirm(f"Delete job {job_id} with its files?", abort=True)
    connect(url, token).delete(job_id)
    console.print(f"Job {job_id}: deleted.")


def _follow(client: Client, job: dict[str, Any], watch_it: bool) -> None:
    lineage = job["lineage"]
    console.print(
        f"Job {job['id']} queued ({lineage['action']} of {lineage['job']}). Dashboard: {client.url}/jobs/{job['id']}", soft_wrap=True
    )
    if watch_it:
        watch_job(client, job["id"])
