"""The demo's table over several seeds: test accuracy, mean ± standard deviation, at the same budget.

`python benchmarks/demo_quality.py --seeds 3` runs the demo's job once per seed through a running embedded service, and
prints the table and the facts of the machine. Every row's runs use the same data, backbone, budget and training settings;
what each one cost in epochs is in the table.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script, not as a module
    sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.demo import SETTINGS, inputs, service

console = Console()


def run(home: Path, budget: str, seeds: int) -> list[dict[str, Any]]:
    """The results of the demo's job for each seed; a job that the home folder's service has finished is not run again."""
    backbone, data = inputs(home / "demo", None)
    results = []
    with service(home) as client:
        for seed in range(seeds):
            request = {"name": f"demo seed {seed}", "backbone": {"name": backbone}, "data": {"path": data}, "budget": budget}
            job = client.submit(request | SETTINGS | {"baselines": "trained", "seed": seed})
            for _ in client.events(job["id"]):
                pass
            job = client.job(job["id"])
            if job["state"] != "succeeded":
                raise SystemExit(f"seed {seed}: {job['failure']}")
            results.append(job["result"] | {"seed": seed, "budget": job["request"]["budget"]})
            winner = job["result"]["winner"]
            console.print(f"seed {seed}: {winner['source']} wins, test {winner['test_accuracy']:.3f}, {winner['parameters']:,} parameters")
    return results


def table(results: list[dict[str, Any]]) -> Table:
    """Mean ± standard deviation per method."""
    shown = Table(
        "method", "trainable parameters", "val accuracy", "test accuracy", title=f"{len(results)} seeds, budget {results[0]['budget']:,}"
    )
    names = [entry["source"] for entry in results[0]["baselines"] if "epochs" in entry]
    rows = {name: [_entry(result, name) for result in results] for name in names}
    rows["searched GLoRA"] = [result["winner"] for result in results]
    for name, entries in rows.items():
        parameters = sorted({entry["parameters"] for entry in entries})
        span = f"{parameters[0]:,}" if len(parameters) == 1 else f"{parameters[0]:,}–{parameters[-1]:,}"
        shown.add_row(name, span, _spread([e["val_accuracy"] for e in entries]), _spread([e["test_accuracy"] for e in entries]))
    return shown


def _entry(result: dict[str, Any], source: str) -> dict[str, Any]:
    """A baseline trained alone."""
    return next(entry for entry in result["baselines"] if entry["source"] == source and "epochs" in entry)


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f} %"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", default="16k")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("GLORA_HOME", ".glora")))
    parser.add_argument("--json", type=Path, help="also write the results here")
    arguments = parser.parse_args()
    results = run(arguments.home, arguments.budget, arguments.seeds)
    console.print(table(results))
    machine = f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}"
    console.print(f"{datetime.date.today()}, {machine}; settings {json.dumps(SETTINGS)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
