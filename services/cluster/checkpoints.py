"""Where the checkpoints of a training lie, a supernet's or that of one subnet alone, and the one to go on from.

Every attempt at a training has a folder of its own, since one whose runner hangs, or was cut off, may go on writing after another has
taken over. Whose checkpoint a training goes on from does not matter: what was reached after so many epochs is the same in all.
"""

import io
import logging
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from fsspec import AbstractFileSystem

_STATE = "state-"

log = logging.getLogger("glora.checkpoints")


def save_state(state: dict[str, Any], folder: Path) -> None:
    """Write a trainer's state into the folder of a checkpoint, under a name that sorts by epochs."""
    torch.save(state, folder / f"{_STATE}{state['epoch']:08d}.pt")


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state that a checkpoint's folder has; None if it has none."""
    for file in folder.glob(f"{_STATE}*.pt"):
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return state
    return None


def latest(filesystem: AbstractFileSystem, folder: str, prefix: str) -> dict[str, Any] | None:
    """The trainer's state from the furthest whole checkpoint of the attempts whose folders' names begin so; None if there is none.

    Raises:
        OSError, BotoCoreError: the store is out of reach.
    """
    return latest_of_each(filesystem, folder, [prefix])[prefix]


def latest_of_each(filesystem: AbstractFileSystem, folder: str, prefixes: Iterable[str]) -> dict[str, dict[str, Any] | None]:
    """The same for several trainings, by their prefixes; the folder is listed once. Errors as of `latest`."""
    places = [path.split("/") for path in filesystem.find(folder)]  # …/attempt/checkpoint/file
    return {prefix: _furthest(filesystem, places, prefix) for prefix in prefixes}


def _furthest(filesystem: AbstractFileSystem, places: Sequence[Sequence[str]], prefix: str) -> dict[str, Any] | None:
    found = [(place[-1], "/".join(place)) for place in places if place[-1].startswith(_STATE) and place[-3].startswith(prefix)]
    for _, path in sorted(found, reverse=True):
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(filesystem.cat_file(path)), map_location="cpu", weights_only=True)
        except FileNotFoundError:  # removed by the attempt that wrote it
            continue
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            log.warning("checkpoint %s is not whole", path)
            continue
        return state
    return None
