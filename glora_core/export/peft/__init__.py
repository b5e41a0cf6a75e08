"""Subnets as adapters of the peft library, and peft's adapters as subnets. Neither direction needs peft itself."""

from glora_core.export.peft.read import Imported, read_peft
from glora_core.export.peft.write import write_peft

__all__ = ["Imported", "read_peft", "write_peft"]
