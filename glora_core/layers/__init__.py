"""The GLoRA formula: dense reference, entangled storage, and the layers that train and merge."""

from glora_core.layers.adapted import GLoRALayer
from glora_core.layers.kinds import GLoRAConv1D, GLoRAConv2d, GLoRALinear, adapt
from glora_core.layers.reference import dense_bias, dense_linear, dense_weight
from glora_core.layers.storage import STORAGES, LayerStorage, make_storage

__all__ = [
    "STORAGES",
    "GLoRAConv1D",
    "GLoRAConv2d",
    "GLoRALayer",
    "GLoRALinear",
    "LayerStorage",
    "adapt",
    "dense_bias",
    "dense_linear",
    "dense_weight",
    "make_storage",
]
