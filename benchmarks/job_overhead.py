"""What a job costs beside its training and its search: a tiny one, again and again, with and without the warm process of a scheduler.

Two embedded services, one with `GLORA_WARM_START` on and one with it off, get the same job in turns; its finals are off, and each round has
another seed, so that nothing is found stored. Told are the medians of the seconds until the runner is at work, until the first epoch,
and until the end, and their ratios. The first job of each service is not counted: it also measures the speed of the cluster.

python -m benchmarks.job_overhead --rounds 5
"""

import argparse
import contextlib
import os
import statistics
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console
from rich.table import Table

from examples.demo import inputs, service
from services.client import Client

MOMENTS = {"its runner is at work": "phase", "its first epoch is over": "epoch", "it has succeeded": "succeeded"}
"""Moments of a job, each with the first event that tells of it."""


def seconds(client: Client, request: dict[str, Any]) -> dict[str, float]:
    """A job's seconds from its submission to each moment."""
    job = client.submit(request)
    events = list(client.events(job["id"]))
    if client.job(job["id"])["state"] != "succeeded":
        raise SystemExit(f"the job failed: {client.job(job['id'])['failure']}")
    start = _time(events[0])
    return {moment: next(_time(event) for event in events if event["kind"] == kind) - start for moment, kind in MOMENTS.items()}


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--home", type=Path, default=Path(".glora/benchmarks"), help="cache folder of the demo's inputs")
    given = parser.parse_args()
    backbone, data = inputs(given.home / "demo", None)
    request = {
        "backbone": {"name": backbone},
        "data": {"path": data},
        "budget": "16k",
        "training": {"epochs": 2},
        "search": {"population": 4, "generations": 2, "evaluators": 1},
        "finals": {"mode": "off"},
    }
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        services = {}
        for warm in found:
            with mock.patch.dict(os.environ, GLORA_WARM_START=str(warm)):
                services[warm] = stack.enter_context(service(Path(folder) / str(warm)))
        for seed in range(given.rounds + 1):
            for warm, client in services.items():
                times = seconds(client, request | {"seed": seed})
                if seed:
                    found[warm].append(times)
    table = Table("seconds until", "forked from a warm process", "by itself", "ratio")
    for moment in MOMENTS:
        warm, cold = (statistics.median(times[moment] for times in found[way]) for way in (True, False))
        table.add_row(moment, f"{warm:.1f}", f"{cold:.1f}", f"{warm / cold:.2f}")
    Console().print(table)


def _time(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()


if __name__ == "__main__":
    main()
