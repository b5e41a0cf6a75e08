"""`make demo`: the whole product on real images in a few minutes, without a network.

Starts the embedded service (or uses the one that runs in the same home folder), submits a job over HTTP, shows its
progress, downloads the merged checkpoint, checks it in a process that knows only timm, and prints a table.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from services import processes
from services.client import Client
from services.client.progress import follow
from services.client.result_tables import result_tables

console = Console()
SETTINGS: dict[str, Any] = {
    "training": {"epochs": 25, "learning_rate": 1e-2},
    "search": {"population": 50, "generations": 20},
    "finals": {"epochs": [15, 80], "scratch_epochs": 40},
}


def inputs(cache: Path, backbone: str | None) -> tuple[str, str]:
    """The demo's backbone name and data folder, made on first use by `examples.digits`."""
    digits = cache / "digits"
    if not (digits / "test").is_dir() or (backbone is None and not (cache / "backbone" / "config.json").is_file()):
        if backbone is None:
            console.print(
                "No backbone was named, and a model hub may be out of reach: pretraining a small ViT on digits 0–4 (once, then cached)."
            )
        with console.status("Preparing scikit-learn's scanned digits: 5–9 are the target task"):
            subprocess.run([sys.executable, "-m", "examples.digits", str(cache)], check=True, stdout=subprocess.DEVNULL)
    return backbone or f"local-dir:{(cache / 'backbone').absolute()}", str(digits.absolute())


@contextmanager
def service(home: Path) -> Iterator[Client]:
    """A client of the service that runs in the home folder, or of one started for the demo and stopped after it."""
    running = _running(home)
    if running is not None:
        yield running
        return
    with console.status("Starting the service: API, scheduler and a local Ray"):
        log = home / "logs" / "serve.log"
        process = processes.start([sys.executable, "-m", "services.cli", "serve", "--port", "0", "--home", str(home)], log=log)
        try:
            client = _await(process, home, log)
        except BaseException:
            processes.stop(process, 30)
            raise
    try:
        yield client
    finally:
        with console.status("Stopping the service"):
            processes.stop(process, 30)


def check(folder: Path, images: Path, expected: float) -> None:
    """Load the checkpoint in a process of its own and compare its test accuracy with the service's figure."""
    script = Path(__file__).with_name("check_checkpoint.py")
    run = subprocess.run(
        [sys.executable, "-P", str(script), str(folder), str(images), repr(expected)], capture_output=True, text=True, check=False
    )
    console.print(f"Checked by {run.stdout.strip()}", highlight=False)
    if run.returncode:
        raise SystemExit(f"The downloaded checkpoint does not reproduce the service's figure.\n{run.stderr}")


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("GLORA_HOME", ".glora")), help="home folder of the service")
    parser.add_argument("--backbone", help="any timm name instead of the small ViT pretrained on the spot")
    parser.add_argument("--budget", default="16k", help="upper bound on trainable parameters")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    backbone, data = inputs(arguments.home / "demo", arguments.backbone)
    request = {"name": "digits 5–9", "backbone": {"name": backbone}, "data": {"path": data}, "budget": arguments.budget}
    with service(arguments.home) as client:
        job = client.submit(request | SETTINGS | {"baselines": "trained", "seed": arguments.seed})
        token = json.loads((arguments.home / "server.json").read_text())["token"]
        console.print(f"Dashboard  {client.url}/jobs/{job['id']}?token={token}", highlight=False, soft_wrap=True)
        if follow(console, job, client.events(job["id"])) != "succeeded":
            raise SystemExit(f"The job did not succeed: {client.job(job['id'])['failure']}")
        job = client.job(job["id"])
        folder = client.download(job["id"], arguments.home / "demo" / job["id"])
    check(folder, Path(data) / "test", job["result"]["winner"]["test_accuracy"])
    console.print(result_tables(job))
    console.print(f"Merged checkpoint: {folder}  ({time.monotonic() - start:.0f} s in all)", highlight=False)
    if _running(arguments.home) is None:
        console.print("Nothing is left running. `make serve` keeps a service up, with this job in it.")


def _running(home: Path) -> Client | None:
    try:
        record = json.loads((home / "server.json").read_text())
        os.kill(record["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    return Client(record["url"], record["token"])


def _await(process: "subprocess.Popen[bytes]", home: Path, log: Path) -> Client:
    while process.poll() is None:
        client = _running(home)
        if client is not None:
            return client
        time.sleep(0.1)
    raise SystemExit(f"The service did not start:\n{log.read_text()[-2000:]}")


if __name__ == "__main__":
    main()
