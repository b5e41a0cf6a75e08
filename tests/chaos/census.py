"""Which processes of a test's system are alive, whoever their parents are by now: all of them print below the system's folder."""

import os
import signal
from pathlib import Path

_RAY_ITSELF = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::_AutoscalingCoordinator")
"""Ray's own, one per node or cluster, that stay as long as it does."""
_WAITING = ("ray::IDLE", "ray::SPILL", "ray::RESTORE", "ray::DELETE")


def ray_workers(root: Path, *, busy: bool) -> dict[int, str]:
    """Ray's worker processes; `busy`: only those that hold an actor or run a task."""
    found = {pid: title for pid, title in alive(root).items() if title.startswith("ray::") and not title.startswith(_RAY_ITSELF)}
    return {pid: title for pid, title in found.items() if not (busy and title.startswith(_WAITING))}


def alive(root: Path) -> dict[int, str]:
    """Processes whose standard output or error is a file below the folder: command lines by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _prints_below(entry, f"{root}/"):
            title = _read(entry / "cmdline").replace("\0", " ").strip()
            if title:  # none of a process that has ended
                found[int(entry.name)] = title
    return found


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
