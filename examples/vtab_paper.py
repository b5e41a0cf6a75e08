"""The GLoRA paper's VTAB-1K recipe, with its published settings, on your own copy of the data and of the weights.

    python -m examples.vtab_paper --data VTAB_DIR --task cifar --weights ViT-B_16.npz --out runs/cifar --device cuda

VTAB_DIR/TASK holds images, train800.txt, val200.txt and test.txt, as NOAH's authors prepared them; the weights are ViT-B/16, ImageNet-21k,
https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz (any other file that timm reads will do). A supernet is trained on
train, an evolution searches it on val, the winner is scored once on test, merged and written to OUT/checkpoint; OUT/results.json has the
figures. Kill it whenever you like: the same command goes on where it was, and ends with the same numbers.

WHAT IT COSTS: 500 epochs of 800 images forward and backward, and 1,000 evaluations of 200 images forward, of ViT-B/16 at 224 pixels.
`--cost` measures a step on your machine, says how long all of it will take, and stops.

Published (arXiv 2306.07967 and the authors' code): paper entanglement, a random subnet a step, rank 4, AdamW at 1e-4 with 10 epochs of
warm-up and a cosine, weight decay 1e-4, drop path 0.1, batches of 64, no augmentation, images squeezed to 224 × 224 and normalised as
ImageNet's; evolution of 50 candidates in 20 generations, 25 by crossover and 25 by mutation of the best 10, each layer with 0.2.
Different here: that code trains on train and val together and searches on *test*; here val decides and test is looked at once. Its
cosine ends at 1e-5, ours at 0; it leaves out the last, smaller batch of an epoch; and numbers that a step does not use stay as they are.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from examples.vtab_parts.cost import told_cost
from examples.vtab_parts.resume import Run
from glora_core.api import Backbone, Supernet, export, images, load, preset
from glora_core.configs import encode
from glora_core.data.images import ImageSplit
from glora_core.data.vtab import TASKS, task
from glora_core.errors import GloraError
from glora_core.evaluation import SubnetScorer
from glora_core.search import Evaluated, SearchSettings
from glora_core.training import Trainer, TrainingSettings

BACKBONE = "vit_base_patch16_224.augreg_in21k"
RANK = 4
BUDGET = 1_000_000
"""The authors' code's own upper bound; their table has 0.22, 0.29 and 0.49 million."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SCORED = 100
"""Images of one forward pass in an evaluation."""
TRAINING = TrainingSettings(
    epochs=500,
    batch_size=64,
    learning_rate=1e-4,
    weight_decay=1e-4,
    warmup_epochs=10,
    drop_path=0.1,
    policy="random",
    entanglement="paper",
)
SEARCH = SearchSettings(
    strategy="evolution",
    population=50,
    generations=20,
    parents=10,
    crossover=25,
    mutation=25,
    mutation_probability=0.2,
    seed_known_methods=False,
)


@dataclass(frozen=True)
class Recipe:
    """What is run: the published settings, or what the command line says instead."""

    training: TrainingSettings
    search: SearchSettings
    rank: int
    budget: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"training": self.training.to_dict(), "search": self.search.to_dict(), "rank": self.rank, "budget": self.budget}


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The recipe of a command line."""
    warmup = min(TRAINING.warmup_epochs or 0, arguments.epochs // 2)
    training = replace(TRAINING, epochs=arguments.epochs, warmup_epochs=warmup, seed=arguments.seed)
    half = arguments.population // 2
    search = replace(
        SEARCH,
        population=arguments.population,
        generations=arguments.generations,
        parents=min(SEARCH.parents, arguments.population),
        crossover=half,
        mutation=half,
    )
    return Recipe(training, search, arguments.rank, arguments.budget)


def inputs(arguments: argparse.Namespace) -> tuple[Backbone, dict[str, ImageSplit]]:
    """The backbone on its device, with the paper's image transform, and the task's splits.

    Raises:
        GloraError: the data or the weights cannot be used.
    """
    classes = task(arguments.task).classes
    backbone = load(arguments.backbone, classes, weights=arguments.weights)
    mean, std = IMAGENET
    squeezed = replace(backbone.info.images, interpolation="bicubic", crop_pct=1.0, crop_mode="squash", mean=mean, std=std)
    backbone = replace(backbone, info=replace(backbone.info, transform=squeezed))
    backbone.model.to(arguments.device)
    folder = Path(arguments.data) / arguments.task
    names = ("train", "val", "test") if (folder / "test.txt").is_file() else ("train", "val")
    device = torch.device(arguments.device)
    found = images(folder, backbone, names)
    return backbone, {name: split.to(device) for name, split in zip(names, found, strict=True)}


def perform(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, search, score and export; returns the results, which are written too."""
    start, recipe = time.monotonic(), recipe_of(arguments)
    backbone, splits = inputs(arguments)
    space = preset("paper", backbone.layers, [recipe.rank])
    supernet = Supernet(backbone.model, space, recipe.training.entanglement, recipe.training.seed)
    if arguments.cost:
        print(told_cost(supernet, splits["train"], len(splits["val"]), recipe.training, recipe.search))
        return {}
    asked = recipe.to_dict() | {"task": arguments.task, "weights": backbone.weights_sha256, "backbone": arguments.backbone}
    run = Run(Path(arguments.out), asked)
    trainer = Trainer(supernet, splits["train"], recipe.training)
    losses = run.train(trainer)
    scorer = SubnetScorer(supernet)

    def evaluate(config: Any) -> Evaluated:
        score = scorer.score(config, splits["val"], SCORED)
        return Evaluated(config, score.accuracy, score.loss, space.parameters(config))

    best, progress = run.search(space, recipe.budget, recipe.search, recipe.training.seed, evaluate)
    results = asked | {
        "losses": losses,
        "best_val_accuracy_by_generation": progress,
        "config": encode(best.config),
        "parameters": best.parameters,
        "val_accuracy": best.accuracy,
        "seconds_of_this_start": time.monotonic() - start,
    }
    if "test" in splits:
        results["test_accuracy"] = scorer.score(best.config, splits["test"], SCORED).accuracy
    facts = {"metrics": {"val_accuracy": best.accuracy, "test_accuracy": results.get("test_accuracy")}, "budget": recipe.budget}
    export(supernet, best.config, run.folder / "checkpoint", backbone, splits["val"], facts=facts)
    run.write("results.json", json.dumps(results, indent=1))
    return results


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.vtab_paper", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of VTAB-1K's tasks")
    parser.add_argument("--task", required=True, choices=list(TASKS), metavar="TASK", help=f"one of {', '.join(TASKS)}")
    parser.add_argument("--weights", help="your file of weights; the backbone's own, from the model hub, if absent")
    parser.add_argument("--out", required=True, help="folder of results, checkpoint and what is needed to go on")
    parser.add_argument("--backbone", default=BACKBONE, help="any vision transformer of timm, or local-dir:FOLDER; default %(default)s")
    parser.add_argument("--budget", type=int, default=BUDGET, help="upper bound on trainable parameters; default %(default)s")
    parser.add_argument("--rank", type=int, default=RANK, help="of low-rank choices; default %(default)s")
    parser.add_argument("--epochs", type=int, default=TRAINING.epochs, help="of the supernet; default %(default)s")
    parser.add_argument("--population", type=int, default=SEARCH.population, help="candidates of a generation; default %(default)s")
    parser.add_argument("--generations", type=int, default=SEARCH.generations, help="default %(default)s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--cost", action="store_true", help="measure a step on this machine, say how long all of it takes, and stop")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Run; 1 with a line of explanation where data, weights or settings cannot be used."""
    try:
        results = perform(parse(sys.argv[1:] if given is None else given))
    except GloraError as error:
        print(error, file=sys.stderr)
        return 1
    if results:
        test = f", test {results['test_accuracy']:.1%}" if "test_accuracy" in results else ""
        print(f"{results['task']}: val {results['val_accuracy']:.1%}{test}, {results['parameters']:,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
