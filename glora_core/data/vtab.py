"""The 19 tasks of VTAB-1K (Zhai et al., arXiv 1910.04867): names as its prepared folders have them, groups, numbers of classes."""

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from glora_core.errors import DataInvalid

Group = Literal["natural", "specialized", "structured"]
TRAIN = "train800.txt"
"""The file by which a folder is known as a task's."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task: the name of its folder, its group, and how many classes its labels have."""

    name: str
    group: Group
    classes: int


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("caltech101", "natural", 102),
        Task("cifar", "natural", 100),
        Task("dtd", "natural", 47),
        Task("oxford_flowers102", "natural", 102),
        Task("oxford_iiit_pet", "natural", 37),
        Task("sun397", "natural", 397),
        Task("svhn", "natural", 10),
        Task("diabetic_retinopathy", "specialized", 5),
        Task("eurosat", "specialized", 10),
        Task("patch_camelyon", "specialized", 2),
        Task("resisc45", "specialized", 45),
        Task("clevr_count", "structured", 8),
        Task("clevr_dist", "structured", 6),
        Task("dmlab", "structured", 6),
        Task("dsprites_loc", "structured", 16),
        Task("dsprites_ori", "structured", 16),
        Task("kitti", "structured", 4),
        Task("smallnorb_azi", "structured", 18),
        Task("smallnorb_ele", "structured", 9),
    )
}


def task(name: str) -> Task:
    """A task by name. Raises DataInvalid for any other name, with the nearest one or all of them."""
    if name not in TASKS:
        near = get_close_matches(name.lower(), TASKS, 1)
        raise DataInvalid(f"VTAB-1K has no task {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"it has {', '.join(TASKS)}"))
    return TASKS[name]


def tasks_under(root: str | os.PathLike[str]) -> tuple[Task, ...]:
    """The tasks whose folders, with their lists, lie directly below a folder; in the order of `TASKS`."""
    return tuple(task for task in TASKS.values() if _is_task(Path(root) / task.name))


def _is_task(folder: Path) -> bool:
    try:
        return (folder / TRAIN).is_file()
    except OSError:  # a folder that may not be looked into, or no path at all
        return False


def hint(folder: Path) -> str:
    """Which task a path that is no data folder may have meant, from what lies beside or below it; empty if there is nothing to say."""
    below = [task.name for task in tasks_under(folder)]
    if below:
        return f"; it holds tasks of VTAB-1K, so name one of them: {', '.join(str(folder / name) for name in below)}"
    beside = [task.name for task in tasks_under(folder.parent) if task.name != folder.name]
    near = get_close_matches(folder.name.lower(), beside, 1)
    if near:
        return f"; did you mean {str(folder.parent / near[0])!r}?"
    return f"; the tasks of VTAB-1K beside it are {', '.join(beside)}" if beside else ""
