"""The library in five minutes: `load`, `images`, `preset`, `Supernet`, `train`, `search`, `finals`, `export`.

Each is a thin layer over a module of its own, which has the details. No Ray, no server, no database.

    backbone = load("vit_small_patch16_224.augreg_in21k", classes=10)
    train_split, val_split = images("flowers", backbone)
    space = preset("paper", backbone.layers)
    supernet = Supernet(backbone.model, space)
    train(supernet, train_split, epochs=60)
    result = search(supernet, val_split, budget=100_000)
    best, *others = finals(supernet, train_split, val_split, result, budget=100_000)
    export(best.on(supernet), best.config, "adapted", backbone, val_split)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from glora_core import backbones
from glora_core.backbones import BackboneInfo, BackboneSpec
from glora_core.backbones.fingerprint import weights_hash
from glora_core.checks import check_whole
from glora_core.configs import SubnetConfig
from glora_core.data.few_shot import few_shot
from glora_core.data.folders import scan
from glora_core.data.images import ImageSplit, load_split
from glora_core.data.split import Split
from glora_core.data.tables import read_table
from glora_core.data.text import TextSplit, classify
from glora_core.effort import DEFAULT, effort_named
from glora_core.errors import BackboneUnsupported, DataInvalid
from glora_core.evaluation import Score, SubnetScorer
from glora_core.export import (
    ADAPTER,
    Export,
    export_checkpoint,
    export_soup,
    write_adapter,
    write_card,
    write_manifest,
    write_soup_manifest,
)
from glora_core.finals import FinalsSettings
from glora_core.finals.run import Finalist, choose_soup, run_finals, train_again
from glora_core.metrics import ACCURACY
from glora_core.presets import preset
from glora_core.sampling import FeasibleSampler
from glora_core.search import Evaluated, SearchSettings, propose, rank
from glora_core.space import LayerShape
from glora_core.supernet import Supernet
from glora_core.training import Probe, Progress, Trainer, TrainingSettings

__all__ = [
    "Backbone",
    "SearchResult",
    "Supernet",
    "export",
    "export_average",
    "finals",
    "images",
    "load",
    "preset",
    "retrain",
    "search",
    "soup",
    "texts",
    "train",
]


@dataclass(frozen=True)
class Backbone:
    """A pretrained network, and what is known of it.

    Attributes:
        model: with a fresh head; a `Supernet` takes it over.
        spec, info: how it was asked for, and its sizes, transform and licence.
        weights_sha256: hash of its weights, head left out.
    """

    model: nn.Module
    spec: BackboneSpec
    info: BackboneInfo
    weights_sha256: str

    @property
    def layers(self) -> tuple[LayerShape, ...]:
        """The layers that adapt."""
        return self.info.layers


@dataclass(frozen=True)
class SearchResult:
    """Every evaluated subnet within the budget, best first, and how good the best was after each generation."""

    ranked: list[Evaluated]
    progress: list[Evaluated] = field(default_factory=list)

    @property
    def best(self) -> Evaluated:
        """The best subnet; its accuracy on the split that chose it flatters it."""
        return self.ranked[0]


def load(
    name: str, classes: int, *, weights: str | None = None, image_size: int | None = None, layers: str | Sequence[str] = (), **task: Any
) -> Backbone:
    """A pretrained backbone by name, with a head of `classes` outputs.

    Args:
        name: what `timm.create_model` takes, or `transformers:` and a folder or hub name.
        classes: at least 1.
        weights, image_size, layers, task: see `BackboneSpec`; a single pattern of `layers` may be given as it is.

    Raises:
        BackboneUnknown, BackboneUnsupported, ConfigInvalid: see `glora_core.backbones`.
    """
    check_whole("classes", classes, 1)
    spec = BackboneSpec(name, weights, image_size, _several(layers), **task)
    info = backbones.describe(spec)  # first, since it costs little and refuses what could not be adapted
    model = backbones.load(spec, classes)
    return Backbone(model, spec, info, weights_hash(model))


def images(
    folder: str | Path, backbone: Backbone, splits: str | Sequence[str] = ("train", "val"), *, shots: int | None = None, seed: int = 0
) -> tuple[ImageSplit, ...]:
    """Splits of a folder of images, by the backbone's own transform.

    Args:
        folder: `train/`, `val/` and perhaps `test/` with one folder per class, or VTAB-1K's list files.
        splits: of `train`, `val`, `test`, and `train+val` for both together; one, or several.
        shots: so many training images per class, drawn by `seed`; all if absent.

    Raises:
        DataInvalid: a split is missing or cannot be read, or the folder has other classes than the backbone's head.
    """
    data = scan(str(folder))
    _check_classes(folder, len(data.classes), backbone)
    if shots is not None:
        data = few_shot(data, shots, seed)
    wanted = _several(splits)
    missing = [name for name in wanted if name not in data.names]
    if missing:
        raise DataInvalid(f"{folder} has no split {missing[0]!r}; it has {', '.join(data.names)}")
    return tuple(load_split(data, name, backbone.info.images) for name in wanted)


def texts(
    path: str | Path, backbone: Backbone, splits: str | Sequence[str] = ("train", "val"), *, max_length: int = 128
) -> tuple[TextSplit, ...]:
    """Splits of a table of labelled texts, by the backbone's own tokenizer.

    Args:
        path: a `.csv` or `.jsonl` file with columns `text`, `label` and `split`, a folder with such a file for each split,
            or a folder that `datasets` saved.
        max_length: longer texts are cut to so many tokens, at least 1.

    Raises:
        ConfigInvalid: no such length.
        DataInvalid: a split is missing or cannot be read, or the table has other classes than the backbone's head.
        BackboneUnsupported: the backbone is no text classifier.
        LibraryMissing: see `read_table`.
    """
    if backbone.info.transform is not None or backbone.spec.task != "classification":
        raise BackboneUnsupported(f"backbone {backbone.spec.name!r} does not classify texts; accepted is transformers:FOLDER")
    check_whole("max_length", max_length, 1)
    table = read_table(path)
    _check_classes(path, len(table.classes), backbone)
    wanted = _several(splits)
    missing = [name for name in wanted if name not in table.splits]
    if missing:
        raise DataInvalid(f"{path} has no split {missing[0]!r}; it has {', '.join(table.splits)}")
    reader = backbones.language.tokenizer(backbone.spec)
    chosen = [table.splits[name] for name in wanted]
    return tuple(classify([e.text for e in rows], [e.label for e in rows], reader, max_length) for rows in chosen)


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    """Names as a tuple, a single one too: as a sequence, a text is its letters."""
    return (names,) if isinstance(names, str) else tuple(names)


def _check_classes(path: str | Path, classes: int, backbone: Backbone) -> None:
    head = backbones.outputs(backbone.model)
    if classes != head:
        raise DataInvalid(f"{path} has {classes:,} classes and the backbone's head {head:,}; load it with classes={classes}")


def train(
    supernet: Supernet,
    split: Split,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    *,
    effort: str = DEFAULT,
    val: Split | None = None,
    **settings: Any,
) -> list[Progress]:
    """Train a supernet, or, after `supernet.cut(config)`, one subnet alone from the supernet's numbers; returns its loss by epoch.

    Args:
        on_epoch: called after each epoch.
        effort: one of `glora_core.effort.EFFORTS`, which says the epochs and the learning rate unless they are given.
        val: a few subnets are probed on it along the way, so that a supernet that does not learn ends early; `patience` needs it.
        settings: of `TrainingSettings`; the policy is `sandwich`, and images are changed by `crop`, unless given.

    Raises:
        ConfigInvalid: there is no such setting, or its value is not accepted.
        DataInvalid: the split is empty.
        Diverged: the loss is no longer finite.
        NotLearning: with `val`: half trained, and no better than guessing.
    """
    history: list[Progress] = []

    def note(progress: Progress) -> None:
        history.append(progress)
        on_epoch(progress)

    spent = effort_named(effort)
    chosen = _training(supernet, split, {"epochs": spent.epochs, "learning_rate": spent.learning_rate} | settings)
    probe = None if val is None else Probe.of(supernet, val, chosen.epochs, chosen.seed, chosen.budget, chosen.patience)
    Trainer(supernet, split, chosen, probe).fit(note)
    return history


def _training(supernet: Supernet, split: Split, given: dict[str, Any]) -> TrainingSettings:
    """What is given, over the library's defaults for such a supernet and split."""
    policy = "random" if supernet.space.size == 1 else "sandwich"
    augment = ("crop",) if isinstance(split, ImageSplit) else ()
    return TrainingSettings.of({"policy": policy, "augment": augment, "entanglement": supernet.entanglement} | given)


def search(
    supernet: Supernet,
    split: Split,
    budget: int,
    settings: SearchSettings | None = None,
    *,
    effort: str = DEFAULT,
    seed: int = 0,
    batch_size: int = 50,
    on_generation: Callable[[int, Evaluated], None] = lambda number, best: None,
) -> SearchResult:
    """Find the best subnets of a trained supernet within a budget; no subnet is evaluated twice.

    Args:
        split: the validation split that decides.
        budget: upper bound on a subnet's trainable parameters, head not counted.
        settings: strategy, population, generations, metric, …
        effort: one of `glora_core.effort.EFFORTS`, which says population and generations where no settings are given.
        on_generation: called with the number of each generation and the best subnet so far.

    Raises:
        BudgetInfeasible: no subnet has so few parameters.
        ConfigInvalid: the metric does not take so many classes, or budget, seed or batch size are no such integers.
        DataInvalid: the split is empty.
    """
    settings = settings or effort_named(effort).search_settings
    sampler, scorer = FeasibleSampler(supernet.space, budget), SubnetScorer(supernet, precision=settings.precision)
    known: dict[SubnetConfig, Evaluated] = {}
    progress: list[Evaluated] = []
    for number in range(settings.generations):
        for proposal in propose(supernet.space, budget, settings, list(known.values()), number, seed, sampler):
            if proposal.config not in known:
                score = scorer.score(proposal.config, split, batch_size, metric=settings.metric)
                known[proposal.config] = _evaluated(supernet, proposal.config, score, settings.metric, number)
        progress.append(rank(known.values())[0])
        on_generation(number, progress[-1])
    return SearchResult(rank(known.values()), progress)


def finals(
    supernet: Supernet,
    train_split: Split,
    val_split: Split,
    found: SearchResult,
    budget: int,
    settings: FinalsSettings | None = None,
    *,
    effort: str = DEFAULT,
    batch_size: int = 50,
    on_trial: Callable[[Finalist], None] = lambda finalist: None,
    metric: str = ACCURACY,
    **training: Any,
) -> list[Finalist]:
    """Train the best candidates and the known methods within the budget alone; returns every finalist of every rung, best first.

    `finalist.on(supernet)` is what `export` takes.

    Args:
        val_split: the validation split that decides.
        settings: who is trained, at which learning rates and for how long.
        effort: one of `glora_core.effort.EFFORTS`, which says so where no settings are given.
        on_trial: called with each finalist as soon as it is trained.
        metric: what they are compared by on val, as the search's.
        training: of `TrainingSettings`: how they are trained; images are changed by `crop` unless given.
    """
    chosen = _training(supernet, train_split, training)
    plan = settings or effort_named(effort).finals_settings
    return run_finals(supernet, train_split, val_split, found.ranked, budget, plan, chosen, batch_size, on_trial, metric=metric)


def retrain(
    supernet: Supernet,
    finalist: Finalist,
    split: Split,
    settings: FinalsSettings | None = None,
    *,
    effort: str = DEFAULT,
    **training: Any,
) -> Finalist:
    """A finalist trained anew in the way that was chosen, on another split: on train and val together, as VTAB's own protocol has it.

    Only a test split can tell what it is worth then; its `fitness` is that of before. Arguments as of `finals`.
    """
    plan = settings or effort_named(effort).finals_settings
    return train_again(supernet, finalist, split, plan, _training(supernet, split, training))


def export(
    supernet: Supernet,
    config: SubnetConfig,
    folder: str | Path,
    backbone: Backbone,
    check: Split,
    classes: Sequence[str] = (),
    facts: dict[str, Any] | None = None,
) -> Export:
    """Write a subnet as a plain checkpoint that timm or transformers loads, with adapter file, manifest and model card.

    Args:
        check: examples on which merged and unmerged outputs are compared.
        classes: names in the order of the head's outputs; numbers if absent.
        facts: anything else for the manifest, such as `metrics` or `budget`.

    Raises:
        ConfigInvalid: there are more or fewer names than outputs, or a name twice; nothing is written.
        ExportMismatch: the merge lost more than rounding allows; the message has the figure.
    """
    folder, names = Path(folder), tuple(classes) or _numbers(supernet)
    written = export_checkpoint(folder, supernet, config, names, backbone.info.transform, check, _tokenizer(backbone))
    manifest = write_manifest(folder, supernet, config, _facts(backbone, written, facts))
    write_card(folder, manifest, supernet.space, config)
    write_adapter(folder / ADAPTER, supernet, config, names)
    return written


def soup(
    supernet: Supernet, finalists: Sequence[Finalist], split: Split, *, batch_size: int = 50, metric: str = ACCURACY
) -> tuple[list[Finalist], Score]:
    """The finalists whose averaged weights are best on the validation split, and the score; one alone where no average helps.

    Args:
        metric: what they are compared by, as the finals'.
    """
    members, found, _ = choose_soup(supernet, finalists, split, batch_size, metric=metric)
    return members, found


def export_average(
    supernet: Supernet,
    members: Sequence[Finalist],
    folder: str | Path,
    backbone: Backbone,
    check: Split,
    classes: Sequence[str] = (),
    facts: dict[str, Any] | None = None,
) -> Export:
    """Write the average of finalists' weights as a plain checkpoint with manifest and model card; arguments and errors as of `export`."""
    folder, names = Path(folder), tuple(classes) or _numbers(supernet)
    nets = [(member.on(supernet), member.config) for member in members]
    written = export_soup(folder, nets, names, backbone.info.transform, check, _tokenizer(backbone))
    manifest = write_soup_manifest(folder, [(net.space, config) for net, config in nets], _facts(backbone, written, facts))
    write_card(folder, manifest, nets[0][0].space, nets[0][1])
    return written


def _tokenizer(backbone: Backbone) -> Any:
    return backbones.language.tokenizer(backbone.spec) if backbone.info.transform is None else None


def _numbers(supernet: Supernet) -> tuple[str, ...]:
    """Names for the outputs of a head that nobody named; none for a language model, which has no head."""
    return tuple(str(number) for number in range(backbones.outputs(supernet.backbone)))


def _facts(backbone: Backbone, written: Export, given: dict[str, Any] | None) -> dict[str, Any]:
    """What a manifest says of a checkpoint's origin."""
    origin = {"name": backbone.spec.name, "weights_sha256": backbone.weights_sha256, "license": backbone.info.license}
    transform = backbone.info.to_dict()["transform"]
    return {"backbone": origin, "transform": transform, "merge_error": written.merge_error} | (given or {})


def _evaluated(supernet: Supernet, config: SubnetConfig, score: Score, metric: str, generation: int) -> Evaluated:
    measure = None if metric == ACCURACY else score.fitness
    parameters = supernet.space.parameters(config)
    return Evaluated(config, score.accuracy, score.loss, parameters, generation, measure=measure, macro_accuracy=score.macro_accuracy)
