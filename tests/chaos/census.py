"""Which processes of a test's system are alive, whoever their parents are by now: all of them print below the system's folder."""

import os
import signal
from pathlib import Path

RAY_WORKER = "ray::"
IDLE_WORKERS = ("ray::IDLE", "ray::SPILL", "ray::RESTORE", "ray::DELETE")


def alive(root: Path) -> dict[int, str]:
    """Processes whose standard output or error is a file below the folder: command lines by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _prints_below(entry, f"{root}/"):
            title = _read(entry / "cmdline").replace("\0", " ").strip()
            if title:  # none of a process that has ended
                found[int(entry.name)] = title
    return found


def titled(root: Path, *beginnings: str) -> list[int]:
    """Ids of the processes whose command line begins with, or has the word, one of these."""
    return [pid for pid, title in alive(root).items() if title.startswith(beginnings) or set(beginnings) & set(title.split())]


def below(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {int(entry.name): _parent(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found, frontier = [pid], [pid]
    while frontier:
        frontier = [child for child, parent in parents.items() if parent in frontier]
        found += frontier
    return found


def send(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to one process, which may have just ended by itself."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _prints_below(entry: Path, folder: str) -> bool:
    for handle in ("1", "2"):
        try:
            if str((entry / "fd" / handle).readlink()).startswith(folder):
                return True
        except OSError:
            continue
    return False


def _parent(entry: Path) -> int:
    stat = _read(entry / "stat")
    return int(stat.rpartition(")")[2].split()[1]) if stat else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
