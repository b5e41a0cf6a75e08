"""A subnet as a plain checkpoint: merged weights under timm's own keys, timm's config file, and a manifest.

The folder loads with `timm.create_model("local-dir:FOLDER", pretrained=True)`, and its `model.safetensors` with
`timm.create_model(architecture, checkpoint_path=…, num_classes=…, **model_args)`; none of our code is needed.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from timm.models import save_for_hf
from torch import nn

from glora_core.backbones import Transform
from glora_core.configs import SubnetConfig
from glora_core.data.split import Split
from glora_core.errors import ExportMismatch
from glora_core.export.verify import BOUND, merge_error
from glora_core.supernet import Supernet

WEIGHTS, CONFIG, MANIFEST = "model.safetensors", "config.json", "manifest.json"


@dataclass(frozen=True, slots=True)
class Export:
    """A written checkpoint: its folder, and the measured difference between merged and unmerged logits (relative)."""

    folder: Path
    merge_error: float


def export_checkpoint(
    folder: Path,
    supernet: Supernet,
    plain: nn.Module,
    config: SubnetConfig,
    classes: tuple[str, ...],
    transform: Transform,
    check: Split,
) -> Export:
    """Merge a config, verify it against the unmerged supernet, and write weights and timm's config file.

    Args:
        folder: created if needed.
        supernet: the trained supernet.
        plain: an unadapted network of the same architecture with the right number of classes.
        config: the subnet to export.
        classes: class names, in the order of the head's outputs.
        transform: the input transform that the checkpoint expects.
        check: images on which merged and unmerged logits are compared.

    Raises:
        ExportMismatch: the two differ by more than `BOUND`.
    """
    state = supernet.merged_state(config)
    missing, unexpected = plain.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ExportMismatch(f"merged weights do not fit the bare architecture: missing {missing}, unexpected {unexpected}")
    error = merge_error(supernet, plain.eval(), config, check)
    if not error <= BOUND:  # also refuses NaN
        raise ExportMismatch(f"merged and unmerged logits differ by {error:.2e} of the largest logit; the bound is {BOUND:.2e}")
    folder.mkdir(parents=True, exist_ok=True)
    model_config = {"label_names": list(classes), "num_classes": len(classes)}
    data_config = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(transform).items()}
    save_for_hf(plain, str(folder), model_config=model_config, safe_serialization=True, data_config=data_config)
    return Export(folder, error)
