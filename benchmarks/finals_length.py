"""How a job should spend its epochs: on its supernet and search or on its finals, and there on many candidates or on few for longer.

The demo's digits 5–9, 16 training images of each, and its small ViT, pretrained on digits 0–4: needs no shared data. For each seed
supernets of two lengths, a search in each at the budget of LoRA of rank 4, then finals by each plan; and LoRA alone for as many
passes as `standard` costs. Told for each: passes in epochs of LoRA alone (a forward pass counts 0.4), and, as means over seeds, accuracy
and loss on test of the best finalist and of what the job hands back, which is the soup where val prefers that. What is in the file of
`--json` already is not run again.

python -m benchmarks.finals_length --seeds 0 1 2 3 4 5 --json FILE
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.quality_parts.runs import FORWARD
from examples.digits import digits, pretrain_backbone
from glora_core.api import Supernet, search
from glora_core.backbones import adapted_layers
from glora_core.configs import encode
from glora_core.data.images import ImageSplit
from glora_core.effort import EFFORTS, LABEL_SMOOTHING
from glora_core.evaluation import SubnetScorer, score
from glora_core.finals import FinalsSettings, epochs_of_all
from glora_core.finals.run import choose_soup, run_finals, single
from glora_core.methods import methods_within
from glora_core.presets import preset
from glora_core.search.noise import rank_within_noise
from glora_core.training import Trainer, TrainingSettings

RATE = 1e-2
"""Peak rate of the supernet; that of `standard` is for larger backbones."""
SHOTS, VAL, BATCH = 16, 150, 50
STANDARD = EFFORTS["standard"]


@dataclass(frozen=True)
class Before:
    """What comes before the finals: epochs of the supernet, and generations of the search."""

    epochs: int
    generations: int


def finals(candidates: int, rates: tuple[float, ...], epochs: tuple[int, ...], teachers: int = 0) -> FinalsSettings:
    """Finals without known methods from scratch."""
    return FinalsSettings("thorough", candidates, tuple(RATE * rate for rate in rates), epochs, (), teachers, STANDARD.standing)


OWN = replace(STANDARD.of(learning_rate=RATE).finals_settings, scratch_epochs=())
PLANS: Mapping[Before, Mapping[str, FinalsSettings]] = {
    Before(50, 6): {
        "3 candidates, 2 rates, 20 epochs, taught": finals(3, (1 / 3, 1), (20,), teachers=5),
        "2 candidates, 60 epochs": finals(2, (1,), (60,)),
        "1 candidate, 120 epochs, taught": finals(1, (1,), (120,), teachers=5),
        "1 candidate, 120 epochs": finals(1, (1,), (120,)),
    },
    Before(STANDARD.epochs, STANDARD.generations): {
        "2 candidates, 20 epochs taught, the better 225 more": replace(OWN, afresh=False),
        "the same, in three cycles": replace(OWN, cycles=3, afresh=False),
        "`standard`: the better 225 from scratch": OWN,
    },
}


def splits(seed: int) -> tuple[ImageSplit, ImageSplit, ImageSplit]:
    """Training images drawn by the seed, as many of each class; then val; the rest is test."""
    images, labels = digits(range(5, 10))
    labels = labels - 5
    order = np.random.default_rng(seed).permutation(len(labels))
    train = np.concatenate([order[labels[order] == label][:SHOTS] for label in range(5)])
    rest = order[~np.isin(order, train)]

    def split(rows: np.ndarray) -> ImageSplit:
        pixels = torch.from_numpy(images[rows])[:, None].expand(-1, 3, -1, -1).contiguous()
        return ImageSplit(pixels, torch.from_numpy(labels[rows]), (0.5,) * 3, (0.5,) * 3)

    return split(train), split(rest[:VAL]), split(rest[VAL:])


def run(backbone: Path, seed: int, smoothing: float, known: Mapping[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Every plan's figures, and LoRA's, with one seed; those that are known are not run again."""
    train, val, test = splits(seed)
    space = preset("glora", adapted_layers(_fresh(backbone)))
    lora = methods_within(space, 10**9)["lora"]
    budget = space.parameters(lora)
    common = {"batch_size": BATCH, "augment": ("crop",), "label_smoothing": smoothing}
    settings = TrainingSettings(**common, epochs=1, learning_rate=RATE, policy="sandwich", seed=seed)
    rows = {name: known[name] for plans in PLANS.values() for name in plans if name in known}
    for before, plans in PLANS.items():
        missing = {name: plan for name, plan in plans.items() if name not in known}
        if not missing:
            continue
        supernet = Supernet(_fresh(backbone), space, seed=seed)
        Trainer(supernet, train, replace(settings, epochs=before.epochs)).fit()
        asked = replace(STANDARD.search_settings, generations=before.generations)
        found = search(supernet, val, budget, asked, seed=seed, batch_size=BATCH)
        spent = 2 * before.epochs + FORWARD * len(found.ranked) * len(val) / len(train)
        for name, plan in missing.items():
            finalists = run_finals(supernet, train, val, rank_within_noise(found.ranked, len(val)), budget, plan, settings, BATCH)
            members, _, network = choose_soup(supernet, finalists, val, BATCH)
            given = _figures("given", network, test)
            best = members[0].on(supernet)
            best.set_config(members[0].config)
            rows[name] = {"passes": spent + _passes(plan)} | _figures("best", best.backbone, test) | given
    equal = round(rows[next(name for name in rows if name.startswith("`standard`"))]["passes"])
    for rate in (1 / 3, 1):
        name = f"LoRA alone, rate {RATE * rate:.2g}"
        if name in known:
            rows[name] = known[name]
            continue
        alone = single(Supernet(_fresh(backbone), space, seed=seed), lora, seed)
        Trainer(alone, train, replace(settings, policy="fixed", fixed=encode(lora), epochs=equal, learning_rate=RATE * rate)).fit()
        figures = _figures("best", SubnetScorer(alone).load(lora), test)
        rows[name] = {"passes": equal} | figures | {f"given_{k[5:]}": v for k, v in figures.items()}
    return rows


def table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """Means over seeds; of accuracy also the standard deviation."""
    shown = Table("finals", "cost", "best finalist", "loss", "handed back", "loss")
    for name in next(iter(found.values())):
        rows = [by_name[name] for by_name in found.values()]
        mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
        spread = {key: statistics.stdev(row[key] for row in rows) if len(rows) > 1 else 0.0 for key in rows[0]}
        cells = [f"{mean['passes']:.0f}"]
        for kind in ("best", "given"):
            cells += [f"{100 * mean[f'{kind}_accuracy']:.1f} ± {100 * spread[f'{kind}_accuracy']:.1f} %", f"{mean[f'{kind}_loss']:.2f}"]
        shown.add_row(name, *cells)
    return shown


def _passes(plan: FinalsSettings) -> float:
    epochs, taught = epochs_of_all(plan)
    return epochs + FORWARD * taught


def _figures(kind: str, network: nn.Module, split: ImageSplit) -> dict[str, float]:
    reached = score(network, split, BATCH)
    return {f"{kind}_accuracy": reached.accuracy, f"{kind}_loss": reached.loss}


def _fresh(backbone: Path) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(f"local-dir:{backbone}", pretrained=True, num_classes=5).eval()
    return model


def main() -> None:
    """Run what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    parser.add_argument("--home", type=Path, default=Path(".glora/benchmarks"), help="cache folder of the demo's backbone")
    parser.add_argument("--json", type=Path, required=True, help="file of the figures, by seed")
    parser.add_argument("--label-smoothing", type=float, default=LABEL_SMOOTHING, metavar="SHARE", help="of all training, as of jobs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = pretrain_backbone(given.home / "demo" / "backbone")
    stored: dict[str, Any] = json.loads(given.json.read_text()) if given.json.is_file() else {"label_smoothing": given.label_smoothing}
    before = stored.get("label_smoothing", 0.0)  # files of old do not say
    if before != given.label_smoothing:
        parser.error(f"{given.json} is of label smoothing {before:g}, not {given.label_smoothing:g}; name another file")
    for seed in map(str, given.seeds):
        stored[seed] = run(backbone, int(seed), given.label_smoothing, stored.get(seed, {}))
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(stored, indent=1) + "\n")
    shown = {str(seed): stored[str(seed)] for seed in given.seeds}
    Console().print(f"digits, {SHOTS} images a class, labels smoothed by {before:g}, test, {len(shown)} seeds", highlight=False)
    Console().print(table(shown))


if __name__ == "__main__":
    main()
