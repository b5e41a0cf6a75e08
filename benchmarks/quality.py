"""The quality table: every method on every task at two budgets, each tuned on `val`, reported on `test`.

`python benchmarks/quality.py --list` shows what there is to do and what it will cost, `--quick` does the main few-shot regime,
without it all of it is done, and `--table` only writes the table from what is there. Every run leaves a JSON record; kill it
whenever you like, a second start does what is missing. Data and backbones are looked for in `--shared`.
"""

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script, not as a module
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.quality_parts.methods import METHODS, Unavailable, budgets
from benchmarks.quality_parts.runs import Records, Run
from benchmarks.quality_parts.table import markdown
from benchmarks.quality_parts.tasks import Task, asked_tasks, known_tasks, take_shared
from benchmarks.quality_parts.training import perform, speed
from benchmarks.quality_parts.tuning import RATES, Case, Effort, expected_passes, first_runs, standing

ROOT = Path(__file__).parents[1]
console = Console(width=150)
QUICK_TASKS = ("sign_digits/vit-half", "omniglot_alph/vit-half")
QUICK_METHODS = ("linear-probe", "bitfit", "ssf", "lora", "random", "peft-lora", "searched-quick")
QUICK_LENGTHS = (20, 40)


QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore::FutureWarning"}
"""For what loads a backbone of transformers in this process and in those it starts."""


def fill(cases: Sequence[Case], records: Records, workers: int) -> int:
    """Do every run that the cases ask for and that has no record, one after the other or in processes; returns how many that were."""
    if workers == 1:
        count = 0
        while missing := ready(cases, records):
            finish(missing[0], records)
            count += 1
        return count
    with ProcessPoolExecutor(workers, get_context("spawn"), begin_worker, (os.getpid(),)) as pool:
        return _fill_in(pool, cases, records, workers)


def _fill_in(pool: ProcessPoolExecutor, cases: Sequence[Case], records: Records, workers: int) -> int:
    running: dict[str, Future[None]] = {}
    count = 0
    while True:
        for run in ready(cases, records):
            if len(running) < workers and run.name not in running:
                running[run.name] = pool.submit(finish, run, records.folder)
                count += 1
        if not running:
            return count
        wait(running.values(), return_when=FIRST_COMPLETED)
        for name in [name for name, future in running.items() if future.done()]:
            running.pop(name).result()


def ready(cases: Sequence[Case], records: Records) -> list[Run]:
    """The runs that can be done now, each once, in the order of the cases."""
    found: dict[str, Run] = {}
    for case in cases:
        try:
            found |= {run.name: run for run in standing(case, records).missing if run.name not in found}
        except Unavailable:
            continue
    return list(found.values())


def finish(run: Run, records: Records | Path) -> None:
    """Do a run and write its record."""
    records = Records(records) if isinstance(records, Path) else records
    record = perform(run)
    records.put(run, record, facts())
    what = f"{run.variant.label or '-'}, rate {run.rate:g}, {run.epochs} epochs, seed {run.seed}"
    came_to = record.failed or f"val {record.val:.3f}, {record.seconds:.0f} s"
    print(f"{run.task.name} {run.method} ({what}): {came_to}", flush=True)


def begin_worker(parent: int) -> None:
    """One thread, and no life after the parent's."""
    torch.set_num_threads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def facts() -> dict[str, str]:
    """What a record and the table say of the machine and the code."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "date": str(datetime.date.today()),
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "commit": found.stdout.strip(),
    }


def plan(arguments: argparse.Namespace, tasks: Sequence[Task]) -> list[Case]:
    """The cases asked for."""
    effort = Effort(tuple(sorted(arguments.lengths)), arguments.seeds, arguments.match_cost, tuple(sorted(arguments.rates)))
    return [
        Case(task, method, name, parameters, effort)
        for name in arguments.budgets
        for task in tasks
        for parameters in [budgets(task.layers)[name]]
        for method in arguments.methods
    ]


def overview(cases: Sequence[Case], records: Records) -> None:
    """Print how far each case is and what is left, in hours on one core; what several cases share is counted once."""
    seconds = {task.name: _seconds_per_pass(task, records) for task in {case.task.name: case.task for case in cases}.values()}
    shown, total = Table("task", "method", "budget", "runs done", "ready now", "passes expected", "hours left"), 0.0
    counted: set[tuple[str, ...]] = set()
    for case in cases:
        try:
            state, begins = standing(case, records), tuple(run.name for run in first_runs(case))
        except Unavailable as reason:
            shown.add_row(case.task.name, case.method, case.budget, "", "", str(reason), "")
            continue
        expected = 0.0 if begins in counted else expected_passes(case)
        counted.add(begins)
        done = [record for run in state.asked if (record := records.get(run)) is not None]
        left = 0.0 if state.choice else max(0.0, expected - sum(record.cost for record in done)) * seconds[case.task.name] / 3600
        total += left
        shown.add_row(case.task.name, case.method, case.budget, f"{len(done)}", f"{len(state.missing)}", f"{expected:,.0f}", f"{left:.2f}")
    console.print(shown)
    rates = ", ".join(f"{name} {1000 * value:.0f}" for name, value in seconds.items())
    console.print(f"about {total:.1f} core hours left; ms for one example forward and backward: {rates}", highlight=False)


def _seconds_per_pass(task: Task, records: Records) -> float:
    """Of a task's own runs so far, or measured now where there are none."""
    known = records.speeds(task)
    return statistics.median(known) if known else speed(task)


def write_table(cases: Sequence[Case], records: Records, file: Path, command: str) -> None:
    """Write the table beside the records, and print it."""
    told = ", ".join(f"{name} {value}" for name, value in facts().items())
    text = markdown(cases, records, f"# Quality\n\n`{command}`\n\n{told}.")
    file.write_text(text)
    print(text)


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The command line, with `--quick` filled in and names checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(known_tasks(Path(), Path()))
    parser.add_argument("--quick", action="store_true", help="the main few-shot regime: two tasks, one budget, the most telling methods")
    parser.add_argument("--tasks", nargs="+", choices=names, metavar="TASK", help=f"of {', '.join(names)}")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), metavar="METHOD", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--budgets", nargs="+", choices=["full", "third"], help="LoRA's of rank 4, and a third of it")
    parser.add_argument("--lengths", nargs="+", type=int, metavar="EPOCHS", help="lengths that are tried")
    parser.add_argument(
        "--rates", nargs="+", type=float, default=RATES, metavar="RATE", help="peak learning rates that are tried, by neighbours"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--match-cost", type=_match, default="ours", metavar="EPOCHS", help="rivals also get so many; `ours`: what `standard` costs; `none`"
    )
    take_shared(parser)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "quality", help="folder of the records")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("GLORA_HOME", ".glora")) / "benchmarks", help="cache folder")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--list", action="store_true", help="show what there is to do and what it costs, and do nothing")
    parser.add_argument("--table", action="store_true", help="write the table from the records there are, and run nothing")
    found = parser.parse_args(given)
    usual = [name for name in names if not name.endswith("-half")]  # these stand in for the whole where that takes too long
    whole: dict[str, Any] = {"tasks": usual, "methods": list(METHODS), "budgets": ["full", "third"], "lengths": (20, 40, 100)}
    quick = {"tasks": QUICK_TASKS, "methods": QUICK_METHODS, "budgets": ["full"], "lengths": QUICK_LENGTHS}
    for name, value in (quick if found.quick else whole).items():
        setattr(found, name, getattr(found, name) or value)
    return found


def _match(text: str) -> int | Literal["ours"] | None:
    """The value of `--match-cost`."""
    if text == "ours":
        return "ours"
    if text == "none":
        return None
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted: a number of epochs, ours, or none")
    return int(text)


def _asked(arguments: argparse.Namespace) -> str:
    """The arguments that decide what is in the table."""
    names = ("tasks", "methods", "budgets", "lengths", *(["rates"] if tuple(arguments.rates) != RATES else []))
    lists = [f"--{name} {' '.join(str(value) for value in getattr(arguments, name))}" for name in names]
    match = [f"--match-cost {arguments.match_cost or 'none'}"]
    trained = [
        f"--precision {arguments.precision}",
        f"--label-smoothing {arguments.label_smoothing}",
        f"--augment {' '.join(arguments.augment)}",
    ]
    trained += [f"--batch-size {arguments.batch_size}"] if arguments.batch_size else []
    return " ".join([*lists, f"--seeds {arguments.seeds}", *trained, *match])


def main() -> None:
    """Run what is missing, and write the table."""
    arguments = parse(sys.argv[1:])
    os.environ |= QUIET
    torch.set_num_threads(1)
    makers, records = asked_tasks(arguments), Records(arguments.results)
    cases = plan(arguments, [makers[name]() for name in arguments.tasks])
    if not arguments.table:
        overview(cases, records)
    if not arguments.table and not arguments.list:
        fill(cases, records, arguments.workers)
    if not arguments.list:
        write_table(cases, records, arguments.results.with_suffix(".md"), f"python benchmarks/quality.py {_asked(arguments)}")


if __name__ == "__main__":
    main()
