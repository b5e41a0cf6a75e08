"""One run of a recipe, done: a supernet trained, its subnets scored inside it on `val` and `test`, and the soup of the best of them."""

import time
from collections.abc import Mapping
from functools import partial

import torch
from torch.nn.attention import sdpa_kernel

from benchmarks.quality_parts.runs import Record
from benchmarks.quality_parts.searched import VAL_BATCH
from benchmarks.quality_parts.sources import Data
from benchmarks.quality_parts.tasks import fresh_model
from benchmarks.quality_parts.training import ATTENTION
from glora_core.calibration import calibrate
from glora_core.configs import SubnetConfig, decode
from glora_core.errors import Diverged, ExportMismatch
from glora_core.evaluation import Score, SubnetScorer, score
from glora_core.finals.soup import Soup, greedy_soup
from glora_core.supernet import Supernet
from glora_core.training import Trainer, TrainingSettings
from glora_core.training.trainer import calibrating_inputs

from .recipes import SupernetRun
from .subnets import space_of

IN_SOUP = 5
"""So many of the subnets that are best on `val` are offered to the soup."""


def perform_supernet(run: SupernetRun) -> Record:
    """Train, score every subnet inside, and make the soup, which is what the record's own figures are of.

    In the record's detail: `inside`, `val`, `val_loss` and `test` by subnet; `largest`, the same of the largest subnet; `soup`, its
    members. A training that diverges, in its loss or in weights too large to be merged, makes a record of its own.
    """
    start, data = time.monotonic(), run.task.source.load(run.task.spec, run.seed)
    torch.manual_seed(run.seed)
    subnets = {name: decode(text) for name, text in run.variant.what["subnets"].items()}
    try:
        with sdpa_kernel(ATTENTION):
            supernet = trained(run, data)
            scorer = SubnetScorer(supernet)
            inside = {name: _scores(scorer, config, data) for name, config in subnets.items()}
            largest = _scores(scorer, supernet.space.extreme(largest=True), data)
            best = sorted(inside, key=lambda name: (-inside[name]["val"], inside[name]["val_loss"]))[:IN_SOUP]
            soup, test = _soup(supernet, [subnets[name] for name in best], data)
    except (Diverged, ExportMismatch) as error:
        return Record(0.0, float("1e9"), 0.0, 0, run.passes, 0, time.monotonic() - start, f"diverged: {error}")
    members = [best[i] for i in soup.members]
    parameters = sum(supernet.space.parameters(subnets[name]) for name in members)
    forwards = (len(subnets) + 1) * (len(data.val) + len(data.test)) + len(best) * len(data.val)
    detail = {"inside": inside, "largest": largest, "soup": members}
    seconds = time.monotonic() - start
    return Record(soup.score.accuracy, soup.score.loss, test.accuracy, parameters, run.passes, forwards, seconds, "", detail)


def trained(run: SupernetRun, data: Data) -> Supernet:
    """The supernet of a run, trained. Raises Diverged."""
    settings = TrainingSettings(**run.settings)
    supernet = Supernet(fresh_model(run.task, data.classes), space_of(run.task), settings.entanglement, run.seed)
    untouched = supernet.trainable_state()
    trainer = Trainer(supernet, data.train, settings)  # which measures scales
    if run.variant.what["scales"] == "guessed":
        supernet.load_trainable_state(untouched)
    if run.variant.what["scales"] == "equal":
        calibrate(supernet, calibrating_inputs(data.train), settings.seed, share=1.0)
    trainer.fit()
    return supernet


def _scores(scorer: SubnetScorer, config: SubnetConfig, data: Data) -> dict[str, float]:
    val, test = (scorer.score(config, split, VAL_BATCH) for split in (data.val, data.test))
    return {"val": val.accuracy, "val_loss": val.loss, "test": test.accuracy}


def _soup(supernet: Supernet, ranked: list[SubnetConfig], data: Data) -> tuple[Soup, Score]:
    """The greedy soup of subnets, best first, and its score on `test`."""
    plain = supernet.bare()
    merged = [partial(_merged, supernet, config) for config in ranked]
    soup = greedy_soup(merged, plain, lambda network: score(network, data.val, VAL_BATCH))
    return soup, score(plain, data.test, VAL_BATCH)


def _merged(supernet: Supernet, config: SubnetConfig) -> Mapping[str, torch.Tensor]:
    return supernet.merged_state(config, torch.float64)
