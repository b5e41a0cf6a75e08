"""How many evaluations a second the coordinator manages when an evaluation costs nothing, beside Ray Tune with the same stub as trials.

python -m benchmarks.coordinator

Every candidate goes through the service's own code: a job submitted to the queue and claimed under a lease, populations proposed for a
ViT-S, the cache asked, batches to a pool of Ray actors, every generation with its evaluations and event committed in one transaction.
PostgreSQL is a server of the benchmark's own, with `fsync` and `synchronous_commit` on. Databases and Ray Tune take turns, in one Ray.
"""

import argparse
import cProfile
import logging
import os
import pstats
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import ray
from rich.console import Console
from rich.table import Table

from benchmarks.coordinator_parts.searches import Coordinator, Pass
from benchmarks.coordinator_parts.stub import StubEvaluator
from benchmarks.coordinator_parts.tuning import trials_per_second
from glora_core.search import STRATEGY_NAMES
from services.cluster.pool import EvaluatorPool
from tests.servers.postgres import PostgresServer


def _pool(size: int) -> EvaluatorPool:
    actor = ray.remote(num_cpus=1)(StubEvaluator)
    pool = EvaluatorPool(lambda: actor.remote(), lambda: size)
    pool.score([str(number) for number in range(1000)])
    return pool


@contextmanager
def _databases() -> Iterator[dict[str, Coordinator]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(PostgresServer(durable=True))
        urls = {"PostgreSQL": stack.enter_context(server.fresh_database("glora")), "SQLite": f"sqlite:///{folder / 'glora.db'}"}
        found = {name: Coordinator.over(url, folder) for name, url in urls.items()}
        try:
            yield found
        finally:
            for coordinator in found.values():
                coordinator.database.dispose()


def _round(databases: dict[str, Coordinator], arguments: argparse.Namespace, number: int) -> dict[str, list[Pass]]:
    """Two jobs on each database: one that evaluates everything, and the same again, answered from the cache."""
    settings = {
        "strategy": arguments.strategy,
        "population": arguments.population,
        "generations": -(-arguments.candidates // arguments.population),
    }
    pool, passes = _pool(arguments.cpus), dict[str, list[Pass]]()
    try:
        for name, coordinator in databases.items():
            key = coordinator.add_supernet()
            passes[name] = [coordinator.run(pool, key, settings, seed=number) for _ in range(2)]
            assert [found.evaluations for found in passes[name]][1] == 0
    finally:
        pool.close()
    return passes


def _print(passes: dict[str, list[list[Pass]]], tuned: list[float], arguments: argparse.Namespace, loads: list[float]) -> None:
    title = (
        f"{arguments.strategy}, population {arguments.population}, {arguments.candidates:,} candidates a job, {arguments.cpus} CPUs; "
        f"load {min(loads):.0f}–{max(loads):.0f}; medians of {arguments.rounds} rounds"
    )
    table = Table("through", "evaluations/s", "a CPU second of the runner", "from the cache, /s", "of Ray Tune's", title=title)
    base = median(tuned)
    for name, rounds in passes.items():
        fresh, per_cpu, cached = (median(column) for column in zip(*((a.rate, a.cpu_rate, b.rate) for a, b in rounds), strict=True))
        table.add_row(name, f"{fresh:,.0f}", f"{per_cpu:,.0f}", f"{cached:,.0f}", f"{fresh / base:,.0f} ×")
    table.add_row("Ray Tune alone", f"{base:,.1f}", "", "", "1 ×")
    Console(width=140).print(table)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=10_000, help="of each job")
    parser.add_argument("--population", type=int, default=50)
    parser.add_argument("--strategy", choices=STRATEGY_NAMES, default="evolution")
    parser.add_argument("--trials", type=int, default=100, help="of Ray Tune, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="of one job on PostgreSQL, instead of the table")
    arguments = parser.parse_args()
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    ray.init(address="local", num_cpus=arguments.cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    with _databases() as databases:
        if arguments.profile:
            _profile(databases, arguments)
            return
        passes: dict[str, list[list[Pass]]] = {name: [] for name in databases}
        tuned, loads = list[float](), list[float]()
        for number in range(arguments.rounds):
            for name, found in _round(databases, arguments, number).items():
                passes[name].append(found)
            tuned.append(trials_per_second([f"{number}-{trial}" for trial in range(arguments.trials)], arguments.cpus))
            loads.append(os.getloadavg()[0])
    _print(passes, tuned, arguments, loads)


def _profile(databases: dict[str, Coordinator], arguments: argparse.Namespace) -> None:
    with cProfile.Profile() as profile:
        _round({"PostgreSQL": databases["PostgreSQL"]}, arguments, 0)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(60)


if __name__ == "__main__":
    main()
