"""The `glora` commands that talk to a service: submit, watch, jobs, logs, cancel, download."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from services.client.client import Client
from services.client.errors import ServiceError
from services.client.progress import follow
from services.client.request_parts import absolute, absolute_backbone, absolute_paths, given, merge, named_folders, read_settings
from services.client.result_tables import result_tables
from services.client.terminal import Terminal, printable

console = Terminal()

Url = Annotated[str | None, typer.Option(help="Where the service listens; found by itself for a server started here.", envvar="GLORA_URL")]
Token = Annotated[
    str | None, typer.Option(help="Bearer token; found by itself for a server started here.", envvar="GLORA_TOKEN", show_envvar=True)
]
JobId = Annotated[str, typer.Argument(help="Id of the job.")]
_DEFAULT_URL = "http://127.0.0.1:8000"


def connect(url: str | None, token: str | None) -> Client:
    """A client of the named service, or of the server that was started from here.

    What is found here may have come with a folder of someone else's: it is told its own token and no other.

    Raises:
        ServiceError: a token of another service was given, and no address.
    """
    home = Path(os.environ.get("GLORA_HOME", ".glora"))
    found_url, found_token = _started_in(home)
    if url is None and found_url is not None and token not in (None, found_token):
        raise ServiceError(
            f"{home / 'server.json'} names {found_url}, with another token than yours; a token that is given (--token, GLORA_TOKEN) is "
            "sent only to an address that is given with it (--url, GLORA_URL)"
        )
    address = url or found_url or _DEFAULT_URL
    return Client(address, found_token if token is None and address.rstrip("/") == found_url else token)


def _started_in(home: Path) -> tuple[str | None, str | None]:
    """Address and token of the server that runs in a home folder, as it has written them there."""
    try:
        found = json.loads((home / "server.json").read_text())
    except (OSError, ValueError):
        return None, None
    url, token = (found.get(name) for name in ("url", "token")) if isinstance(found, dict) else (None, None)
    return (url, token if isinstance(token, str) else None) if isinstance(url, str) else (None, None)


def submit(
    data: Annotated[
        str,
        typer.Option(
            help="Folder with train/, val/ and perhaps test/ class folders, or VTAB-1K lists; of texts, a table or a folder of tables."
        ),
    ],
    backbone: Annotated[
        str, typer.Option(help="A name that timm.create_model takes: a timm model, hf-hub:… or local-dir:…; for texts, transformers:….")
    ],
    budget: Annotated[str, typer.Option(help="Upper bound on trainable parameters: 100000, 100k, 1.5M.")],
    name: Annotated[str, typer.Option(help="Name for humans.")] = "",
    weights: Annotated[str | None, typer.Option(help="Weights file to use instead of the name's own.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the input in pixels.")] = None,
    effort: Annotated[
        str | None, typer.Option(help="How much to spend: quick, standard (default) or thorough; the options below override it.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Search space: glora (default), paper, paper-multirank, bitfit, ssf, lora-8, ….")
    ] = None,
    rank: Annotated[list[int] | None, typer.Option(help="Rank of low-rank choices, perhaps several times; else the preset's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of supernet training. Default: the effort's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate. Default 0.003.")] = None,
    policy: Annotated[str | None, typer.Option(help="Supernet training: sandwich (default), full-sandwich or random.")] = None,
    warmup_epochs: Annotated[int | None, typer.Option(help="Epochs over which the learning rate rises. Default a tenth of all.")] = None,
    drop_path: Annotated[float | None, typer.Option(help="Stochastic depth: rate at which the last block is left out. Default 0.")] = None,
    patience: Annotated[int | None, typer.Option(help="Early stop: epochs without a lower loss on val. Default never.")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="How to search: surrogate (default), evolution, random, nsga2 or regularized-evolution.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="What to search for: accuracy (default), macro-accuracy, or a torchmetrics class, MulticlassF1Score, …."),
    ] = None,
    second: Annotated[
        str | None, typer.Option(help="With --strategy nsga2: a test set of --also-test, on half of which accuracy is another objective.")
    ] = None,
    population: Annotated[int | None, typer.Option(help="Candidates per generation. Default: the effort's.")] = None,
    generations: Annotated[int | None, typer.Option(help="Generations. Default: the effort's.")] = None,
    finals: Annotated[str | None, typer.Option(help="Last round, trained alone: thorough (default), winner or off.")] = None,
    finalists: Annotated[int | None, typer.Option(help="Best candidates of thorough finals. Default: the effort's.")] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Also report linear probe, BitFit and LoRA inside the supernet.")] = False,
    trained_baselines: Annotated[bool, typer.Option("--trained-baselines", help="Likewise, and also trained alone from scratch.")] = False,
    train_on_val: Annotated[
        bool, typer.Option("--train-on-val", help="Train what has won once more, on train and val together, and export that.")
    ] = False,
    shots: Annotated[
        int | None, typer.Option(help="Few-shot: so many training examples per class, drawn by the seed. Default all.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Texts: tokens that longer ones are cut to. Default: the backbone's.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Texts: column of the text. Default text.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Texts: column of the label. Default label.")] = None,
    split_column: Annotated[str | None, typer.Option(help="Texts: column of the split. Default split.")] = None,
    also_test: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: a further test set of the same classes, perhaps several times.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Ray Train workers. Default 1.")] = None,
    gpu: Annotated[bool, typer.Option(help="Train and evaluate on GPUs.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of everything random. Default 0.")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="JSON file with further fields of the request, such as space or finals; options given here win.")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="Higher ones are started sooner, from -100 to 100. Default 0.")] = None,
    max_hours: Annotated[float | None, typer.Option(help="Hours that the job may run. Default any number.")] = None,
    watch_it: Annotated[bool, typer.Option("--watch/--no-watch", help="Show progress until the job is over.")] = True,
    url: Url = None,
    token: Token = None,
) -> None:
    """Submit a job: adapt BACKBONE to DATA within BUDGET trainable parameters."""
    request = absolute_paths(read_settings(settings))
    request |= {"budget": budget} | given(
        seed=seed,
        effort=effort,
        name=name or None,
        baselines="trained" if trained_baselines else baselines or None,
        train_on_val=train_on_val or None,
        priority=priority,
        max_hours=max_hours,
    )
    columns = given(text=text_column, label=label_column, split=split_column)
    merge(request, "data", given(path=absolute(data), shots=shots, also_test=named_folders(also_test) or None))
    merge(request, "data", given(max_length=max_length, columns=((request["data"].get("columns") or {}) | columns) or None))
    merge(request, "backbone", given(name=absolute_backbone(backbone), weights=weights and absolute(weights), image_size=image_size))
    merge(request, "space", given(preset=preset, ranks=rank or None))
    merge(request, "training", given(epochs=epochs, learning_rate=learning_rate, policy=policy, workers=workers, use_gpu=gpu or None))
    merge(request, "training", given(warmup_epochs=warmup_epochs, drop_path=drop_path, patience=patience))
    merge(request, "search", given(strategy=strategy, metric=metric, second=second, population=population, generations=generations))
    merge(request, "finals", given(mode=finals, candidates=finalists))
    client = connect(url, token)
    job = client.submit(request)
    console.print(f"Job {job['id']} queued. Dashboard: {client.url}/jobs/{job['id']}", soft_wrap=True)
    if job["waiting"]:
        console.print(Text(f"Place in the queue: {job['waiting']['position']} of {job['waiting']['of']}, {job['waiting']['message']}"))
    for warning in job["data"].get("warnings", []):
        console.print(Text("Warning:", "yellow"), Text(warning), soft_wrap=True)
    if watch_it:
        watch_job(client, job["id"])


def watch(job_id: JobId, url: Url = None, token: Token = None) -> None:
    """Show the progress of a job until it is over."""
    watch_job(connect(url, token), job_id)


def watch_job(client: Client, job_id: str) -> None:
    """Follow a job in the terminal and print how it ended; exits with 1 if it did not succeed."""
    try:
        state = follow(console, client.job(job_id), client.events(job_id))
    except KeyboardInterrupt:
        console.print(f"Job {job_id} goes on. See it again with: glora watch {job_id}; end it with: glora cancel {job_id}", soft_wrap=True)
        raise
    job = client.job(job_id)
    if state != "succeeded":
        failure = job["failure"]
        console.print(Text(state, "red"), Text(f"({failure['reason']}): {failure['message']}" if failure else ""))
        if failure:
            console.print(f"Its log: glora logs {job_id}")
        raise typer.Exit(1)
    console.print(result_tables(job))
    console.print(f"Download it with: glora download {job_id}")


def jobs(
    state: Annotated[str | None, typer.Option(help="Only queued, running, paused, succeeded, failed or cancelled ones.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=500)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List jobs, newest first."""
    rows = connect(url, token).jobs(state, limit)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("id", "name", "user", "state", "phase", "made from", "created")
    for row in rows:
        state_text = row["state"] + (f" ({row['failure_reason']})" if row["failure_reason"] else "")
        table.add_row(
            row["id"],
            escape(row["name"]),
            escape(row["user"]),
            state_text,
            (row["phase"] or "") if row["state"] == "running" else _place(row["waiting"]),
            f"{row['parent_action']} of {row['parent_id']}" if row["parent_id"] else "",
            row["created_at"][:19].replace("T", " "),
        )
    console.print(table if rows else "No jobs yet. Submit one with: glora submit --data DIR --backbone NAME --budget 100k")


def _place(waiting: dict[str, Any] | None) -> str:
    """Where a queued job stands, in words; empty for one that is not queued."""
    return f"{waiting['position']} of {waiting['of']}: {escape(waiting['message'])}" if waiting else ""


def logs(
    job_id: JobId,
    tail: Annotated[int, typer.Option(help="Last so many lines.", min=1, max=100_000)] = 1000,
    url: Url = None,
    token: Token = None,
) -> None:
    """Print what the processes of a job have printed, with the tracebacks of failed attempts."""
    text = connect(url, token).logs(job_id, tail)
    typer.echo(printable(text) or f"Job {job_id} has printed nothing yet.\n", nl=False)


def cancel(job_id: JobId, url: Url = None, token: Token = None) -> None:
    """Cancel a queued, running or paused job."""
    connect(url, token).cancel(job_id)
    console.print(f"Job {job_id}: cancellation requested.")


def download(
    job_id: JobId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write to; the job's id by default.")] = None,
    url: Url = None,
    token: Token = None,
) -> None:
    """Download the merged checkpoint of a finished job: weights, config file and manifest, of texts also the tokenizer."""
    folder = connect(url, token).download(job_id, output or Path(job_id))
    texts = "architectures" in json.loads((folder / "config.json").read_text())
    library = "transformers" if texts else "timm"
    call = (
        f'AutoModelForSequenceClassification.from_pretrained("{folder}")'
        if texts
        else f'create_model("local-dir:{folder}", pretrained=True)'
    )
    console.print(f"Wrote {folder}/. Load it with plain {library}:", highlight=False, markup=False)
    console.print(f"  {library}.{call}", highlight=False, markup=False)


def run(app: typer.Typer) -> None:
    """Run the command line; a refusal of the service becomes a short message and exit status 1."""
    try:
        app()
    except ServiceError as error:
        Terminal(stderr=True).print(Text("Error:", "red"), Text(str(error)), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
