"""What in a folder leads out of it: links that somebody else's files are behind, and pipes that a reader would wait at for ever.

Looked at before anything is read, since what is read is told of in refusals, tokenizers and checkpoints. Not for what the folder holds.
Paths are strings here: of 100,000 files, Path objects alone take longer than everything else.
"""

import os
import stat
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from glora_core.data.labels import short
from glora_core.errors import DataInvalid


def check_inside(path: str | os.PathLike[str], roots: Sequence[Path]) -> None:
    """Refuse a file or folder of which a part lies elsewhere than below the roots, or is no file at all.

    Folders are walked to their ends, those behind links too, each once. What does not exist, or cannot be listed, is left to its reader.

    Args:
        roots: where links may lead to; anywhere, if there are none.

    Raises:
        DataInvalid: a link leads to what does not lie below one of the roots; or there is a pipe, a socket or a device.
    """
    allowed = tuple(os.path.realpath(root) for root in roots)
    resolve = cache(os.path.realpath)
    start = os.path.realpath(path)
    waiting = [(start, "")] if _is_folder(start, Path(path).name, allowed) else []
    seen = {start}
    while waiting:
        folder, shown = waiting.pop()
        for entry in _entries(folder):
            if entry.is_file(follow_symlinks=False):
                continue
            name, target = f"{shown}{entry.name}", _end(entry.path, resolve) if entry.is_symlink() else entry.path
            if _is_folder(target, name, allowed) and target not in seen:
                seen.add(target)
                waiting.append((target, f"{name}/"))


def _entries(folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _end(link: str, resolve: Callable[[str], str]) -> str:
    """Where a link leads in the end; `resolve` remembers the folders that many links lead to (a fifth of the time)."""
    try:
        folder, name = os.path.split(os.path.join(os.path.dirname(link), os.readlink(link)))  # noqa: PTH115, PTH118, PTH120
    except OSError:
        return os.path.realpath(link)
    found = f"{resolve(folder).rstrip('/')}/{name}"
    return os.path.realpath(found) if name in ("", ".", "..") or os.path.islink(found) else found  # noqa: PTH114


def _is_folder(target: str, name: str, roots: Sequence[str]) -> bool:
    """Whether a path, links followed, is a folder. Raises DataInvalid if it is not to be read, by the name that it is reached by."""
    if roots and not any(target == root or target.startswith(f"{root.rstrip('/')}/") for root in roots):
        raise DataInvalid(f"link {short(name)} leads to what does not lie below {', '.join(roots)}; put the files themselves there")
    try:
        mode = os.stat(target).st_mode  # noqa: PTH116
    except OSError:  # there is nothing
        return False
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataInvalid(f"{short(name)} is a pipe, a socket or a device; accepted are files and folders")
    return stat.S_ISDIR(mode)
