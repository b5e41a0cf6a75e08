"""The GLoRA formula: dense reference, entangled storage, and the layer that trains and merges."""

from glora_core.layers.linear import GLoRALinear
from glora_core.layers.reference import dense_bias, dense_linear, dense_weight
from glora_core.layers.storage import STORAGES, LayerStorage, make_storage

__all__ = ["STORAGES", "GLoRALinear", "LayerStorage", "dense_bias", "dense_linear", "dense_weight", "make_storage"]
