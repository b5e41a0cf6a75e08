"""Does a supernet tell which subnets are good: subnets trained alone against their scores inside supernets of several recipes.

`python benchmarks/rank_fidelity.py --list` shows what there is to do and what it will cost, without it all of it is done, and
`--table` only writes the table from what is there. Every run leaves a JSON record; kill it whenever you like, a second start does
what is missing. Data and backbones are looked for in `--shared`, as for the quality table, whose tasks and settings these are.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script, not as a module
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.fidelity_parts.recipes import RECIPES, Experiment, SupernetRun, experiment
from benchmarks.fidelity_parts.supernets import perform_supernet
from benchmarks.fidelity_parts.table import Grid, markdown, recipes_table
from benchmarks.quality import QUIET, ROOT, begin_worker, facts
from benchmarks.quality_parts.runs import SCORING, Records, Run
from benchmarks.quality_parts.tasks import Task, asked_tasks, known_tasks, take_shared
from benchmarks.quality_parts.training import perform, speed
from glora_core.effort import EFFORTS

console = Console(width=150)


def fill(experiments: Sequence[Experiment], records: Records, workers: int) -> int:
    """Do every run that has no record, one after the other or in processes; returns how many that were."""
    wanted = {run.name: run for found in experiments for run in found.runs}
    missing = [run for run in wanted.values() if records.get(run) is None]
    if workers == 1:
        for run in missing:
            finish(run, records)
        return len(missing)
    with ProcessPoolExecutor(workers, get_context("spawn"), begin_worker, (os.getpid(),)) as pool:
        try:
            for future in as_completed([pool.submit(finish, run, records.folder) for run in missing]):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
    return len(missing)


def finish(run: Run, records: Records | Path) -> None:
    """Do a run and write its record."""
    records = Records(records) if isinstance(records, Path) else records
    record = perform_supernet(run) if isinstance(run, SupernetRun) else perform(run)
    records.put(run, record, facts())
    kind = "supernet" if isinstance(run, SupernetRun) else "alone"
    print(f"{run.task.name} {kind}, {run.variant.label}: {record.failed or f'val {record.val:.3f}, {record.seconds:.0f} s'}", flush=True)


def overview(experiments: Sequence[Experiment], records: Records) -> None:
    """Print what is done and what is left, in minutes on one core."""
    rows, total = [], 0.0
    for found in experiments:
        seconds = _seconds_per_pass(found.task, records)
        groups: dict[str, list[Run]] = {f"{len(found.alone)} subnets alone": list(found.alone.values())}
        groups |= {f"supernet, {name}": [run] for name, run in found.supernets.items()}
        for name, runs in groups.items():
            left = [run for run in runs if records.get(run) is None]
            minutes = sum(expected_cost(run) for run in left) * seconds / 60
            total += minutes
            rows.append([found.task.name, name, f"{len(runs) - len(left)} of {len(runs)}", f"{minutes:.0f}"])
    show(Grid(["task", "runs", "done", "minutes left"], rows))
    console.print(f"about {total / 60:.1f} core hours left", highlight=False)


def expected_cost(run: Run) -> float:
    """Of a run, in training examples that go forward and backward."""
    return run.expected_cost if isinstance(run, SupernetRun) else run.epochs * run.task.source.size + SCORING


def _seconds_per_pass(task: Task, records: Records) -> float:
    """Of a task's own runs so far, or measured now where there are none."""
    return statistics.median(records.speeds(task) or [speed(task)])


def show(grid: Grid) -> None:
    """Print a table."""
    table = Table(*grid.head)
    for row in grid.rows:
        table.add_row(*row)
    console.print(table)


def write_table(experiments: Sequence[Experiment], records: Records, file: Path, command: str) -> None:
    """Write the tables beside the records, and print those of the recipes."""
    told = ", ".join(f"{name} {value}" for name, value in facts().items())
    file.write_text(markdown(experiments, records, f"# Rank fidelity\n\n`{command}`\n\n{told}."))
    for found in experiments:
        console.print(found.task.name)
        show(recipes_table(found, records))
    console.print(f"written to {file}", highlight=False)


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The command line, with names checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names, usual = list(known_tasks(Path(), Path())), EFFORTS["standard"]
    parser.add_argument("--task", nargs="+", choices=names, default=names[:1], metavar="TASK", help=f"one or more of {', '.join(names)}")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES), metavar="RECIPE", help="; ".join(RECIPES))
    parser.add_argument("--subnets", type=int, default=16, help="subnets that are drawn, beside LoRA, BitFit and SSF")
    parser.add_argument("--epochs", type=int, default=usual.epochs, help="of a supernet and of a subnet alone, before the task's pace")
    parser.add_argument("--rate", type=float, default=usual.learning_rate, help="peak learning rate of both")
    parser.add_argument("--seed", type=int, default=0, help="of training examples, initial values and order; not of the subnets")
    take_shared(parser)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "rank_fidelity", help="folder of the records")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("GLORA_HOME", ".glora")) / "benchmarks", help="cache folder")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--list", action="store_true", help="show what there is to do and what it costs, and do nothing")
    parser.add_argument("--table", action="store_true", help="write the table from the records there are, and run nothing")
    found = parser.parse_args(given)
    if min(found.subnets, found.epochs, found.workers) < 1:
        parser.error("--subnets, --epochs and --workers must be at least 1")
    return found


def main() -> None:
    """Run what is missing, and write the table."""
    arguments = parse(sys.argv[1:])
    os.environ |= QUIET
    torch.set_num_threads(1)
    makers, records = asked_tasks(arguments), Records(arguments.results)
    tasks = [makers[name]() for name in arguments.task]
    plan = (arguments.recipes, arguments.subnets, arguments.rate, arguments.epochs, arguments.seed)
    experiments = [experiment(task, *plan) for task in tasks]
    if not arguments.table:
        overview(experiments, records)
    if not arguments.table and not arguments.list:
        fill(experiments, records, arguments.workers)
    if not arguments.list:
        given = " ".join(f'"{a}"' if " " in a else a for a in sys.argv[1:] if a != "--table")
        write_table(experiments, records, arguments.results.with_suffix(".md"), f"python benchmarks/rank_fidelity.py {given}".strip())


if __name__ == "__main__":
    main()
