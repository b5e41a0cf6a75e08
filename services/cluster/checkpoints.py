"""Where the checkpoints of a supernet's training lie, and the one to go on from.

Every attempt at a training has a folder of its own, since one whose runner hangs, or was cut off, may go on writing after another has
taken over. Whose checkpoint a training goes on from does not matter: what was reached after so many epochs is the same in all.
"""

import io
import logging
import pickle
from typing import Any

import torch
from fsspec import AbstractFileSystem

STATE = "state.pt"

log = logging.getLogger("glora.checkpoints")


def latest(filesystem: AbstractFileSystem, folder: str, prefix: str) -> dict[str, Any] | None:
    """The trainer's state from the latest whole checkpoint of the attempts whose folders' names begin so; None if there is none.

    Raises:
        OSError, BotoCoreError: the store is out of reach.
    """
    places = [path.split("/") for path in filesystem.find(folder)]  # …/attempt/checkpoint/file
    found = {place[-2]: "/".join(place) for place in places if place[-1] == STATE and place[-3].startswith(prefix)}
    for _, path in sorted(found.items(), reverse=True):  # Ray Train names checkpoints by their time
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(filesystem.cat_file(path)), map_location="cpu", weights_only=True)
        except FileNotFoundError:  # removed by the attempt that wrote it
            continue
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            log.warning("checkpoint %s is not whole", path)
            continue
        return state
    return None
