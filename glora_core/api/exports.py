"""What was found, written as a plain checkpoint with everything that tells how it came about."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glora_core import backbones
from glora_core.api.backbone import Backbone
from glora_core.configs import SubnetConfig
from glora_core.data.split import Split
from glora_core.data.text import TextSplit
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
from glora_core.finals.run import Finalist
from glora_core.supernet import Supernet


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
        check: examples on which merged and unmerged outputs are compared; of texts, the checkpoint's tokenizer cuts as these were cut.
        classes: names in the order of the head's outputs; numbers if absent.
        facts: anything else for the manifest, such as `metrics` or `budget`.

    Raises:
        ConfigInvalid: there are more or fewer names than outputs, or a name twice; nothing is written.
        ExportMismatch: the merge lost more than rounding allows; the message has the figure.
    """
    folder, names = Path(folder), tuple(classes) or _numbers(supernet)
    written = export_checkpoint(folder, supernet, config, names, backbone.info.transform, check, _tokenizer(backbone, check))
    manifest = write_manifest(folder, supernet, config, _facts(backbone, written, facts))
    write_card(folder, manifest, supernet.space, config)
    write_adapter(folder / ADAPTER, supernet, config, names)
    return written


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
    written = export_soup(folder, nets, names, backbone.info.transform, check, _tokenizer(backbone, check))
    manifest = write_soup_manifest(folder, [(net.space, config) for net, config in nets], _facts(backbone, written, facts))
    write_card(folder, manifest, nets[0][0].space, nets[0][1])
    return written


def _tokenizer(backbone: Backbone, check: Split) -> Any:
    """The tokenizer that goes with a checkpoint, which cuts texts as those of a split were cut; None for images."""
    if not backbone.info.reads_texts:
        return None
    tokenizer = backbones.language.tokenizer(backbone.spec)
    if isinstance(check, TextSplit) and check.max_length is not None:
        tokenizer.model_max_length = check.max_length
    return tokenizer


def _numbers(supernet: Supernet) -> tuple[str, ...]:
    """Names for the outputs of a head that nobody named; none for a language model, which has no head."""
    return tuple(str(number) for number in range(backbones.outputs(supernet.backbone)))


def _facts(backbone: Backbone, written: Export, given: dict[str, Any] | None) -> dict[str, Any]:
    """What a manifest says of a checkpoint's origin."""
    spec = backbone.spec
    origin = {"name": spec.name, "weights": spec.weights, "weights_sha256": backbone.weights_sha256, "license": backbone.info.license}
    transform = backbone.info.to_dict()["transform"]
    return {"backbone": origin, "transform": transform, "merge_error": written.merge_error} | (given or {})
