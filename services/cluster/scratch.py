"""Temporary folders of Ray's workers, which may be killed at any moment: what one has left goes when the next one needs a folder."""

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OURS = "glora-scratch-"
_NEW = "glora-new-"


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder that goes at the end of the block, or, if this process is killed in it, at the next call on this host.

    A folder is in use as long as its process has it locked, and the kernel lets go of the lock however the process ends.
    """
    root = Path(tempfile.gettempdir())
    _sweep(root)
    made = Path(tempfile.mkdtemp(prefix=_NEW, dir=root))
    handle = _lock(made)
    folder = made.rename(root / f"{_OURS}{secrets.token_hex(8)}")  # locked before it has a name that others sweep
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _sweep(root: Path) -> None:
    for folder in root.glob(f"{_OURS}*"):
        handle = _lock(folder)
        if handle is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """A handle that has the folder locked; None if another process has, or it is gone, or another user's."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        with contextlib.suppress(OSError):
            os.close(handle)
        return None
    return handle
