"""How good is the best subnet after so many evaluations: every strategy on the same supernet, over many seeds.

`python benchmarks/search_quality.py` trains one supernet on the demo's digits, lets every strategy search it with every
seed, and prints the best subnet's fitness against the number of evaluations. Evaluations are real (merged and scored on
`val`), and kept in a cache folder, so that strategies and seeds share them and a second run takes minutes. `test` is
scored for each search's final winner only.

The backbone is the demo's, but sees patches of 4 pixels instead of 2: an evaluation then takes a third of the time.
"""

import argparse
import datetime
import hashlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script, not as a module
    sys.path.insert(0, str(Path(__file__).parents[1]))

import glora_core
from examples import digits
from glora_core.backbones import BackboneSpec, adapted_layers, input_transform, load
from glora_core.configs import SubnetConfig, encode
from glora_core.data.folders import scan
from glora_core.data.images import load_split
from glora_core.evaluation import SubnetScorer
from glora_core.sampling import FeasibleSampler
from glora_core.search import Evaluated, SearchSettings, propose, rank
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import Trainer, TrainingSettings

console = Console(width=150)
BATCH = 256
PATCH = 4
CHECKPOINTS = (50, 100, 200, 400, 1000)
BASELINE = "evolution"
CODE = ("layers", "supernet.py", "training", "evaluation.py", "space.py")
"""What of the core decides an evaluation; when it changes, the cache is left behind."""

Fitness = tuple[float, float]
"""Accuracy and minus the loss on `val`: the larger pair is the better subnet, as in `glora_core.search.rank`."""

VARIANTS: Mapping[str, SearchSettings] = {
    "random": SearchSettings(strategy="random", seed_known_methods=False),
    BASELINE: SearchSettings(strategy="evolution", seed_known_methods=False),
    "evolution, seeded": SearchSettings(strategy="evolution", seed_known_methods=True),
    "regularized-evolution": SearchSettings(strategy="regularized-evolution", seed_known_methods=False),
    "nsga2": SearchSettings(strategy="nsga2", seed_known_methods=False),
    "surrogate": SearchSettings(strategy="surrogate", seed_known_methods=False),
    "surrogate, seeded": SearchSettings(strategy="surrogate", seed_known_methods=True),
    "surrogate, population 25": SearchSettings(strategy="surrogate", population=25, seed_known_methods=False),
}


class Bench:
    """A trained supernet and every evaluation of it that was ever asked for.

    Args:
        home: cache folder.
        seed: of the supernet.
        epochs: of its training.
    """

    def __init__(self, home: Path, seed: int, epochs: int) -> None:
        with patch.dict(digits.MODEL_ARGS, patch_size=PATCH):
            spec = BackboneSpec(f"local-dir:{digits.pretrain_backbone(home / f'backbone-patch{PATCH}')}")
        folder = scan(digits.write_target(home / "digits"))
        self._plain = load(spec, len(folder.classes))
        transform = input_transform(self._plain, spec)
        self._splits = {name: load_split(folder, name, transform) for name in ("train", "val", "test")}
        self.space = SearchSpace(adapted_layers(self._plain))
        self._training = TrainingSettings(epochs=epochs, learning_rate=1e-2, policy="sandwich", seed=seed)
        self._folder = home / f"supernet-seed{seed}-{epochs}epochs-{_fingerprint()}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._known = {split: self._read(split) for split in ("val", "test")}

    def score(self, config: SubnetConfig, split: str = "val") -> Fitness:
        """Accuracy and minus the loss of a subnet, from the cache if it is there."""
        text, known = encode(config), self._known[split]
        if text not in known:
            score = self._scorer.score(config, self._splits[split], BATCH)
            known[text] = (score.accuracy, -score.loss)
            with self._file(split).open("a") as file:
                file.write(f"{text}\t{score.accuracy!r}\t{-score.loss!r}\n")
        return known[text]

    def evaluate(self, config: SubnetConfig, generation: int) -> Evaluated:
        """A subnet's evaluation as a strategy sees it."""
        accuracy, minus_loss = self.score(config)
        return Evaluated(config, accuracy, -minus_loss, self.space.parameters(config), generation)

    @cached_property
    def _scorer(self) -> SubnetScorer:
        supernet, file = Supernet(deepcopy(self._plain), self.space, "normalised", self._training.seed), self._folder / "supernet.pt"
        if file.is_file():
            supernet.load_trainable_state(torch.load(file))
        else:
            with console.status(f"Training the supernet of seed {self._training.seed}"):
                Trainer(supernet, self._splits["train"], self._training).fit()
            torch.save(supernet.trainable_state(), file)
        return SubnetScorer(supernet, deepcopy(self._plain))

    def _file(self, split: str) -> Path:
        return self._folder / f"{split}.tsv"

    def _read(self, split: str) -> dict[str, Fitness]:
        file = self._file(split)
        rows = (line.split("\t") for line in file.read_text().splitlines()) if file.is_file() else ()
        return {text: (float(accuracy), float(minus_loss)) for text, accuracy, minus_loss in rows}


def replay(bench: Bench, budget: int, settings: SearchSettings, seed: int, sampler: FeasibleSampler) -> list[Evaluated]:
    """The evaluations of a whole search, in the order in which they were proposed."""
    history: list[Evaluated] = []
    for generation in range(settings.generations):
        population = propose(bench.space, budget, settings, history, generation, seed, sampler)
        history += [bench.evaluate(proposal.config, generation) for proposal in population]
    return history


def best_after(history: Sequence[Evaluated], evaluations: int) -> Fitness:
    """Fitness of the best of the first few evaluations."""
    best = rank(history[:evaluations])[0]
    return best.accuracy, -best.loss


def needed(history: Sequence[Evaluated], target: Fitness) -> int | None:
    """How many evaluations it took to find a subnet at least as good as the target; None if it was not found."""
    return next((number for number, e in enumerate(history, 1) if (e.accuracy, -e.loss) >= target), None)


def search_all(bench: Bench, arguments: argparse.Namespace) -> dict[str, list[list[Evaluated]]]:
    """The searches of every variant with every seed."""
    sampler, found = FeasibleSampler(bench.space, arguments.budget), dict[str, list[list[Evaluated]]]()
    for name in dict.fromkeys([BASELINE, *arguments.variants]):
        settings, start = VARIANTS[name], time.monotonic()
        settings = replace(settings, generations=-(-arguments.evaluations // settings.population))
        with console.status(f"{name}: {arguments.seeds} seeds"):
            found[name] = [replay(bench, arguments.budget, settings, seed, sampler) for seed in range(arguments.seeds)]
        console.print(f"{name}: {arguments.seeds} searches in {time.monotonic() - start:.0f} s", highlight=False)
    return found


def fitness_table(found: Mapping[str, list[list[Evaluated]]], checkpoints: Sequence[int]) -> Table:
    """Mean ± standard deviation over seeds of the best subnet's accuracy, and its mean loss, after so many evaluations."""
    shown = Table("strategy", *(f"{n}" for n in checkpoints), title="best val accuracy (%), its loss (nats), after evaluations")
    for name, histories in found.items():
        cells = []
        for number in checkpoints:
            best = [best_after(history, number) for history in histories]
            cells.append(f"{_spread([100 * accuracy for accuracy, _ in best])}, {statistics.mean(-loss for _, loss in best):.3f}")
        shown.add_row(name, *cells)
    return shown


def speed_table(bench: Bench, found: Mapping[str, list[list[Evaluated]]]) -> Table:
    """How soon each strategy is as good as the baseline's median search at its end, and what its winners are worth on `test`."""
    target = statistics.median_low(best_after(history, len(history)) for history in found[BASELINE])
    title = f"evaluations until as good as {BASELINE}'s median at the end: accuracy {100 * target[0]:.2f} %, loss {-target[1]:.4f}"
    shown = Table("strategy", "median", "lower to upper quartile", "share of seeds", "winner's val", "winner's test", title=title)
    for name, histories in found.items():
        counts = [needed(history, target) or sys.maxsize for history in histories]
        low, middle, high = statistics.quantiles(counts, n=4, method="inclusive")
        winners = [rank(history)[0] for history in histories]
        shown.add_row(
            name,
            _count(middle),
            f"{_count(low)} to {_count(high)}",
            f"{sum(count < sys.maxsize for count in counts)}/{len(counts)}",
            _spread([100 * winner.accuracy for winner in winners]),
            _spread([100 * bench.score(winner.config, "test")[0] for winner in winners]),
        )
    return shown


def _count(value: float) -> str:
    return f"{value:.0f}" if value < sys.maxsize / 4 else "not reached"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.2f}"


def _fingerprint() -> str:
    root, total = Path(glora_core.__file__).parent, hashlib.sha256()
    for name in CODE:
        files = sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / name]
        for file in files:
            total.update(file.read_bytes())
    return total.hexdigest()[:8]


def main() -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=int, default=16_000)
    parser.add_argument("--seeds", type=int, default=20, help="searches per strategy")
    parser.add_argument("--evaluations", type=int, default=1000, help="per search")
    parser.add_argument("--supernet-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40, help="of the supernet's training")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), help="what to run beside evolution")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("GLORA_HOME", ".glora")) / "benchmarks")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(arguments.home, arguments.supernet_seed, arguments.epochs)
    found = search_all(bench, arguments)
    checkpoints = [n for n in CHECKPOINTS if n < arguments.evaluations] + [arguments.evaluations]
    console.print(fitness_table(found, checkpoints), speed_table(bench, found), sep="\n")
    machine = f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    console.print(f"{datetime.date.today()}, {machine}; budget {arguments.budget:,}, {arguments.seeds} seeds", highlight=False)


if __name__ == "__main__":
    main()
