"""A model card in Markdown: what a checkpoint is, what it was made from, how good it is, and how to load it.

Written from the facts of its manifest, so that it says nothing that was not measured; a fact that is missing is left out.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glora_core.configs import SubnetConfig
from glora_core.metrics import ACCURACY, OWN
from glora_core.names import transformers_name
from glora_core.reading import summary, table
from glora_core.space import SearchSpace

CARD = "README.md"


def write_card(folder: Path, manifest: Path, space: SearchSpace, config: SubnetConfig) -> Path:
    """Write the card of a manifest's file into a checkpoint's folder, under the name that model hubs show; returns its path."""
    path = folder / CARD
    path.write_text(model_card(json.loads(manifest.read_text(encoding="utf-8")), space, config), encoding="utf-8")
    return path


def model_card(manifest: Mapping[str, Any], space: SearchSpace, config: SubnetConfig) -> str:
    """The card's text.

    Args:
        manifest: as `write_manifest` writes it; `backbone`, `data`, `budget`, `metrics`, `baselines`, `seed` and `job` are shown where
            present.
        space: over the layers that adapt.
        config: the subnet that was merged; of a soup, its first member.
    """
    parts = [
        _front_matter(manifest),
        f"# {manifest['architecture']}, adapted by GLoRA",
        "A plain checkpoint of the same architecture: the adapter is merged into its weights, so it costs nothing at inference.",
        _section("Results", _rows(_metrics(manifest))),
        _section("Baselines", _baselines(manifest.get("baselines", []))),
        _section("Checks of the data", "\n".join(f"- {warning}" for warning in manifest.get("data", {}).get("warnings", []))),
        _section("Where it comes from", _rows(_origin(manifest, space, config))),
        _section("How to load it", _loading(manifest)),
        _section("What was adapted", f"{_soup(manifest)}{summary(space, config)}\n\n{table(space, config)}"),
        _section("Versions", ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items())),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(manifest: Mapping[str, Any]) -> str:
    backbone = manifest.get("backbone", {})
    name = str(backbone.get("name", ""))
    hub = transformers_name(name)
    name = name if hub is None else "" if hub.startswith(("/", ".", "~")) else hub
    fields = {
        "license": backbone.get("license"),
        "base_model": name if name and ":" not in name and not backbone.get("weights") else None,
        "library_name": manifest["library"],
        "tags": "[glora, peft, merged]",
    }
    return "\n".join(["---", *(f"{key}: {value}" for key, value in fields.items() if value), "---"])


def _metrics(manifest: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    metrics = manifest.get("metrics", {})
    metric = metrics.get("metric", ACCURACY)
    for split in ("val", "test"):
        accuracy, loss, macro, value = (metrics.get(f"{split}_{name}") for name in ("accuracy", "loss", "macro_accuracy", "metric"))
        if accuracy is not None:
            yield f"accuracy on {split}", f"{accuracy:.2%}" + ("" if loss is None else f" (cross-entropy {loss:.4f} nats)")
        if macro is not None:
            yield f"macro accuracy on {split}", f"{macro:.2%}"
        if value is not None and metric not in OWN:
            yield f"{metric} on {split}", f"{value:.4f}"
    sets = manifest.get("data", {}).get("also_test", {})
    for name, found in metrics.get("also_test", {}).items():
        classes = f", among {sets[name]['classes']:,} classes" if name in sets else ""
        yield f"accuracy on {name}", f"{found['accuracy']:.2%} ({found['examples']:,} {_kind(manifest)}{classes})"
        if found.get("macro_accuracy") is not None:
            yield f"macro accuracy on {name}", f"{found['macro_accuracy']:.2%}"
        if found.get("metric") is not None and metric not in OWN:
            yield f"{metric} on {name}", f"{found['metric']:.4f}"
    second = manifest.get("second")
    if second:
        other = f"accuracy on {second['selection']:,} other examples of {second['set']} was a second objective of the search"
        yield f"note on {second['set']}", f"{other}, so that it is no shift that the search knew nothing of"
    before = metrics.get("before", {})
    for split in ("val", "test"):
        if before.get(f"{split}_accuracy") is not None:
            yield f"accuracy on {split} before it was trained on {metrics['trained_on']}", f"{before[f'{split}_accuracy']:.2%}"
    if metrics.get("val_accuracy", before.get("val_accuracy")) is not None:
        chosen = metric.replace("-", " ")
        yield "note", f"the subnet was chosen by its {chosen} on val, which therefore flatters it; test played no part in the choice"


def _baselines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Known methods on the same data within the same budget, a row each; nothing where none were asked for."""
    if not rows:
        return ""
    shown = []
    for row in rows:
        where = f"alone, {row['epochs']:,} epochs" if row.get("epochs") is not None else "inside the supernet"
        shares = (row.get(f"{split}_accuracy") for split in ("val", "test"))
        cells = (row["source"], where, f"{row['parameters']:,}", *("" if share is None else f"{share:.2%}" for share in shares))
        shown.append(f"| {' | '.join(cells)} |")
    return "\n".join(["| method | trained | parameters | accuracy on val | accuracy on test |", "| --- | --- | --- | --- | --- |", *shown])


def _origin(manifest: Mapping[str, Any], space: SearchSpace, config: SubnetConfig) -> Iterable[tuple[str, str]]:
    backbone, data = manifest.get("backbone", {}), manifest.get("data", {})
    yield "backbone", f"`{backbone['name']}`" if backbone.get("name") else ""
    yield "backbone weights, sha256", f"`{backbone['weights_sha256']}`" if backbone.get("weights_sha256") else ""
    yield "backbone licence", str(backbone.get("license") or "not recorded: ask whoever published the weights")
    yield "data fingerprint", f"`{data['fingerprint']}`" if data.get("fingerprint") else ""
    yield "examples", ", ".join(f"{split} {count:,}" for split, count in data.get("splits", {}).items() if isinstance(count, int))
    yield f"{_kind(manifest)} per class", ", ".join(f"{split} {_range(counts)}" for split, counts in data.get("counts", {}).items())
    yield "classes", f"{len(manifest['classes']):,}"
    yield "longest text, in tokens", f"{manifest['text']['max_length']:,}; longer ones are cut" if manifest.get("text") else ""
    yield "method", "per-layer GLoRA configuration ([arXiv 2306.07967](https://arxiv.org/abs/2306.07967)), found by search in a supernet"
    budget = f" of a budget of {manifest['budget']:,}" if manifest.get("budget") is not None else ""
    soup = manifest.get("soup")
    if soup:
        yield "average of", f"{len(soup['members'])} subnets, each within the budget by itself; {soup['parameters']:,} parameters in all"
    yield "trainable parameters", f"{space.parameters(config):,}{budget}, head not counted" + (", of its first member" if soup else "")
    yield "seed", str(manifest.get("seed", ""))
    yield "difference of merged and unmerged logits", f"{manifest['merge_error']:.1e} of the largest" if "merge_error" in manifest else ""
    yield "weights, sha256", f"`{manifest['weights']['sha256']}`"


def _kind(manifest: Mapping[str, Any]) -> str:
    """What the examples are: `images` or `texts`."""
    return str(manifest.get("data", {}).get("kind", "images"))


def _range(counts: Sequence[int]) -> str:
    """The smallest and the largest of some counts; one number where they are the same."""
    return f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"


def _soup(manifest: Mapping[str, Any]) -> str:
    """The members of a soup, one a line; nothing for a single subnet."""
    members = manifest.get("soup", {}).get("members", ())
    rows = [f"{i}. `{member['hash'][:12]}`, {member['parameters']:,} parameters: `{member['code']}`" for i, member in enumerate(members, 1)]
    head, foot = f"The weights are the average of {len(rows)} merged subnets:", "The first of them:\n\n"
    return "\n\n".join([head, "\n".join(rows), foot]) if rows else ""


def _loading(manifest: Mapping[str, Any]) -> str:
    if manifest["library"] == "transformers":
        code = _transformers_code(str(manifest["architecture"]))
    else:
        code = 'import timm\n\nmodel = timm.create_model("local-dir:FOLDER", pretrained=True).eval()'
    return f"```python\n{code}\n```\n\n`FOLDER` is the folder of this file."


def _transformers_code(architecture: str) -> str:
    """A classifier with its tokenizer, which cuts texts as in training; of any other model the model alone."""
    if not architecture.endswith("ForSequenceClassification"):
        return f"from transformers import {architecture}\n\nmodel = {architecture}.from_pretrained(FOLDER)"
    return (
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        "model = AutoModelForSequenceClassification.from_pretrained(FOLDER).eval()\n"
        "tokenizer = AutoTokenizer.from_pretrained(FOLDER)\n"
        'logits = model(**tokenizer(["a text"], truncation=True, return_tensors="pt")).logits\n'
        "label = model.config.id2label[int(logits.argmax())]"
    )


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    shown = [f"| {name} | {value} |" for name, value in rows if value]
    return "\n".join(["| | |", "| --- | --- |", *shown]) if shown else ""
