"""A subnet taken away: merged checkpoints, adapter-only files, ONNX, peft adapters, model cards, and their verification."""

from glora_core.export.adapter import ADAPTER, Adapter, apply_adapter, read_adapter, write_adapter
from glora_core.export.card import CARD, model_card, write_card
from glora_core.export.checkpoint import CONFIG, MANIFEST, WEIGHTS, Export, export_checkpoint, merged_network
from glora_core.export.manifest import versions, write_manifest, write_soup_manifest
from glora_core.export.onnx_format import ONNX, Parity, write_onnx
from glora_core.export.soup import export_soup
from glora_core.export.states import load_state, save_state
from glora_core.export.verify import BOUND, Verification, merge_error, verify

__all__ = [
    "ADAPTER",
    "BOUND",
    "CARD",
    "CONFIG",
    "MANIFEST",
    "ONNX",
    "WEIGHTS",
    "Adapter",
    "Export",
    "Parity",
    "Verification",
    "apply_adapter",
    "export_checkpoint",
    "export_soup",
    "load_state",
    "merge_error",
    "merged_network",
    "model_card",
    "read_adapter",
    "save_state",
    "verify",
    "versions",
    "write_adapter",
    "write_card",
    "write_manifest",
    "write_onnx",
    "write_soup_manifest",
]
