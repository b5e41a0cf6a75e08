"""A subnet as a plain checkpoint: merged weights under the architecture's own keys, and the config files its library wants.

A timm folder loads with `timm.create_model("local-dir:FOLDER", pretrained=True)`, and its `model.safetensors` with
`timm.create_model(architecture, checkpoint_path=…, num_classes=…, **model_args)`; a transformers folder with
`AutoModelForSequenceClassification.from_pretrained(FOLDER)`. None of our code is needed.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models import save_for_hf
from torch import nn

from glora_core.backbones import Inputs, Transform, outputs
from glora_core.configs import SubnetConfig
from glora_core.data.split import Split
from glora_core.errors import ConfigInvalid, ExportMismatch
from glora_core.export.verify import Verification, verify
from glora_core.supernet import Supernet

WEIGHTS, CONFIG, MANIFEST = "model.safetensors", "config.json", "manifest.json"
_EXAMPLES = 8


@dataclass(frozen=True, slots=True)
class Export:
    """A written checkpoint: its folder, and what was measured of it before it was written."""

    folder: Path
    verification: Verification

    @property
    def merge_error(self) -> float:
        """Largest difference of merged and unmerged logits, as a share of the largest logit."""
        return self.verification.merge_error


def export_checkpoint(
    folder: Path,
    supernet: Supernet,
    config: SubnetConfig,
    classes: tuple[str, ...],
    transform: Transform | None,
    check: Split,
    tokenizer: Any = None,
) -> Export:
    """Merge a config, verify it against the unmerged supernet, and write weights and config files.

    Args:
        folder: created if needed.
        supernet: the trained supernet.
        config: the subnet to export.
        classes: class names, in the order of the head's outputs; a transformers model may keep its own, if there are none.
        transform: the input transform that the checkpoint expects; None for a transformers model.
        check: its first eight examples are those on which the merged and the unmerged network are compared.
        tokenizer: of a transformers model; its files go into the folder too.

    Raises:
        ConfigInvalid: there are more or fewer names than outputs, or a name twice.
        ExportMismatch: the two differ by more than the bounds of `glora_core.export.verify`, or the config gives a bias to a layer
            whose architecture has none.
    """
    if classes or transform is not None:
        check_names(classes, outputs(supernet.backbone))
    plain = merged_network(supernet, config)
    verification = verify(supernet, plain, config, examples_of(check))
    save_network(folder, plain, classes, transform, tokenizer)
    return Export(folder, verification)


def examples_of(check: Split) -> Inputs:
    """The first eight examples, on which the merged and the unmerged network are compared."""
    return check.take(torch.arange(min(_EXAMPLES, len(check)), device=check.labels.device))[0]


def save_network(folder: Path, plain: nn.Module, classes: tuple[str, ...], transform: Transform | None, tokenizer: Any = None) -> None:
    """Write a plain network's weights and config files; arguments as of `export_checkpoint`."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder, plain, classes, transform)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def merged_network(supernet: Supernet, config: SubnetConfig) -> nn.Module:
    """A plain network of the backbone's own architecture with a config merged into it, in eval mode.

    Raises:
        ExportMismatch: the config gives a bias to a layer whose architecture has none, nor a batch norm to take it up.
    """
    plain = supernet.bare()
    missing, unexpected = plain.load_state_dict(supernet.merged_state(config), strict=False)
    if missing or unexpected:
        gained = ", ".join(unexpected) or "none"
        raise ExportMismatch(
            f"merged weights do not fit the bare architecture: it lacks {gained}, which a choice of C or E in a layer without bias "
            f"asks for, and keeps {missing} unset; a space without `new_biases` has no such choice"
        )
    return plain


def check_names(classes: tuple[str, ...], count: int) -> None:
    """Refuse names that neither library could give to its outputs: timm builds a head of as many, transformers looks them up by name."""
    if len(classes) != count:
        raise ConfigInvalid(f"{len(classes):,} class names are given for a head of {count:,} outputs; accepted are {count:,}, or none")
    if len(set(classes)) < count:
        twice = next(name for name in classes if classes.count(name) > 1)
        raise ConfigInvalid(f"class name {twice!r} is given twice; accepted are {count:,} that differ")


def _save(folder: Path, plain: Any, classes: tuple[str, ...], transform: Transform | None) -> None:
    if transform is None:
        if classes:
            plain.config.id2label, plain.config.label2id = dict(enumerate(classes)), {name: i for i, name in enumerate(classes)}
        plain.save_pretrained(folder)
        return
    model_config = {"label_names": list(classes), "num_classes": len(classes)}
    data_config = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(transform).items()}
    save_for_hf(plain, str(folder), model_config=model_config, safe_serialization=True, data_config=data_config)
