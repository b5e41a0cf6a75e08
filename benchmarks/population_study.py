"""Population size × mutation rate × generations: how good a search gets, for how many evaluations, and how much it has seen.

`python -m benchmarks.population_study` searches one supernet on the demo's digits with every population and rate and with many
seeds, each time with as many candidates in all, so that a larger population means fewer generations. Evaluations are real (merged
and scored on `val`) and kept in the cache of `search_quality.py`: kill it whenever you like, a second start does what is missing.
It writes a record, from which `--table` makes table and plot again without evaluating anything.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

if not __package__:  # run as a script, not as a module
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.quality import ROOT, facts
from benchmarks.search_quality import Bench
from benchmarks.study_parts.report import markdown, plot
from benchmarks.study_parts.searches import Grid, study

COMMAND = "python -m benchmarks.population_study"


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--populations", type=int, nargs="+", default=[10, 25, 50], metavar="N", help="candidates of a generation")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.2, 0.5], metavar="P", help="chance of a layer to be redrawn")
    parser.add_argument("--evaluations", type=int, default=200, help="candidates of a search in all")
    parser.add_argument("--strategy", choices=("evolution", "regularized-evolution", "nsga2", "surrogate"), default="evolution")
    parser.add_argument("--seeds", type=int, default=10, help="searches of every setting")
    parser.add_argument("--budget", type=int, default=16_000, help="upper bound on trainable parameters")
    parser.add_argument("--epochs", type=int, default=40, help="of the supernet's training")
    parser.add_argument("--record", type=Path, default=ROOT / "benchmarks" / "results" / "population_study.json", help="the record")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the table and the plot")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("GLORA_HOME", ".glora")) / "benchmarks", help="cache folder")
    parser.add_argument("--table", action="store_true", help="only make table and plot of the record there is")
    found = parser.parse_args(given)
    if min(*found.populations, found.seeds, found.epochs) < 1 or found.evaluations < max(found.populations):
        parser.error("--populations, --seeds and --epochs must be at least 1, and --evaluations at least the largest population")
    return found


def record(arguments: argparse.Namespace, command: str) -> dict[str, Any]:
    """Do all searches."""
    bench = Bench(arguments.home, 0, arguments.epochs)
    grid = Grid(arguments.strategy, arguments.populations, arguments.rates, arguments.evaluations)
    rows = study(bench, grid, arguments.budget, arguments.seeds, lambda text: print(text, flush=True))
    names = ("strategy", "evaluations", "seeds", "budget", "epochs")
    asked = {name: getattr(arguments, name) for name in names}
    layers = [layer.name for layer in bench.space.layers]
    return {"command": command, "facts": facts(), "asked": asked, "layers": layers, "rows": rows}


def main() -> None:
    """Search what is missing, and write record, table and plot."""
    given = sys.argv[1:]
    arguments = parse(given)
    torch.set_num_threads(1)
    if not arguments.table:
        found = record(arguments, " ".join([COMMAND, *given]))
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(json.dumps(found) + "\n")
    found = json.loads(arguments.record.read_text())
    picture = arguments.docs / "population-study.png"
    plot(found, picture)
    (arguments.docs / "population-study.md").write_text(markdown(found, picture.name))
    print(f"written to {arguments.docs}")


if __name__ == "__main__":
    main()
