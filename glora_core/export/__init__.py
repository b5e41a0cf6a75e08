"""A subnet taken away: merged checkpoints, adapter-only files, ONNX, peft adapters, model cards, and their verification."""

from glora_core.export.checkpoint import CONFIG, MANIFEST, WEIGHTS, Export, export_checkpoint, merged_network
from glora_core.export.manifest import versions, write_manifest
from glora_core.export.states import load_state, save_state
from glora_core.export.verify import BOUND, merge_error

__all__ = [
    "BOUND",
    "CONFIG",
    "MANIFEST",
    "WEIGHTS",
    "Export",
    "export_checkpoint",
    "load_state",
    "merge_error",
    "merged_network",
    "save_state",
    "versions",
    "write_manifest",
]
