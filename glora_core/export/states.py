"""A supernet's trainable state as a safetensors file."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a trainable state as safetensors."""
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a trainable state written by `save_state`."""
    return load_file(path)
