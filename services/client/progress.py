"""The progress bar of a job in a terminal: phase, generation, best fitness, parameters and time left."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

_FINAL = ("succeeded", "failed", "cancelled")


def follow(console: Console, job: dict[str, Any], events: Iterable[dict[str, Any]]) -> str:
    """Draw a job's progress from its events until it is over; returns the final state."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=14),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[note]}", markup=False),
        _TimeLeft(),
    )
    state = str(job["state"])
    with Progress(*columns, console=console) as progress:
        bars = _Bars(progress, job)
        for event in events:
            bars.show(event)
            if event["kind"] in _FINAL:
                state = event["kind"]
    return state


class _TimeLeft(ProgressColumn):
    """Time left while a bar moves, time taken once it is full."""

    def render(self, task: Task) -> Text:
        """Such as `~0:42 left` or `1:10`."""
        if task.finished or task.total == 1:
            return Text(_clock(task.finished_time or task.elapsed or 0))
        return Text("" if task.time_remaining is None else f"~{_clock(task.time_remaining)} left", style="cyan")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class _Bars:
    """One bar per phase that has something to count."""

    def __init__(self, progress: Progress, job: dict[str, Any]) -> None:
        self._progress, self._job = progress, job["id"]
        self._generations, self._metric = (job["request"]["search"][name] for name in ("generations", "metric"))
        self._tasks: dict[str, Any] = {}
        self._best_finalist, self._left, self._doing = 0.0, "", "starting"
        self._phase = progress.add_task("queued", total=1, note=(job.get("waiting") or {}).get("message", "waiting for a scheduler"))

    def show(self, event: dict[str, Any]) -> None:
        """Update the bars with one event."""
        kind, data = event["kind"], event["data"]
        handler = getattr(self, f"_on_{kind}", None)
        if handler is not None:
            handler(data)
        elif kind in _FINAL:
            self._progress.update(self._phase, description=kind, completed=1, note=data.get("message", ""))
            for task in self._progress.tasks:
                self._progress.stop_task(task.id)

    def _on_started(self, data: dict[str, Any]) -> None:
        self._progress.update(self._phase, description="starting", note="joining the Ray cluster")

    def _on_resumed(self, data: dict[str, Any]) -> None:
        self._progress.update(self._phase, description="resuming", note=f"attempt {data['epoch']}")

    def _on_requeued(self, data: dict[str, Any]) -> None:
        maker = f"job {data['job']} is training the same supernet" if "supernet" in data else "waiting to go on"
        why = f"{data['reason']}: tried again in {data['wait_seconds']:.0f} s" if "reason" in data else maker
        self._progress.update(self._phase, description="queued", note=why)

    def _on_pause_requested(self, data: dict[str, Any]) -> None:
        self._progress.update(self._phase, description="pausing", note="finishing what is in hand")

    def _on_paused(self, data: dict[str, Any]) -> None:
        self._progress.update(self._phase, description="paused", note=f"go on with: glora resume {self._job}")

    def _on_resume_requested(self, data: dict[str, Any]) -> None:
        self._progress.update(self._phase, description="queued", note="waiting for a scheduler")

    def _on_supernet_awaited(self, data: dict[str, Any]) -> None:
        self._progress.update(self._phase, description="waiting", note=f"job {data['job']} is training the same supernet")

    def _on_room_awaited(self, data: dict[str, Any]) -> None:
        self._progress.update(self._phase, description="waiting", note=data["message"])

    def _on_room_found(self, data: dict[str, Any]) -> None:
        self._progress.update(self._phase, description=self._doing, note="")

    def _on_phase(self, data: dict[str, Any]) -> None:
        notes = {"train": "starting training workers", "search": "starting evaluators"}
        words = (notes.get(data["phase"], ""), self._left)
        self._doing = data["phase"]
        self._progress.update(self._phase, description=self._doing, note=", ".join(filter(None, words)))

    def _on_estimate(self, data: dict[str, Any]) -> None:
        if data["over"]:
            self._left = f"{data['left']} left in all"
        else:
            self._progress.console.print(f"Expected to take {data['text']}", highlight=False, soft_wrap=True)

    def _on_epoch(self, data: dict[str, Any]) -> None:
        self._set("supernet", data["epochs"], data["epoch"], f"loss {data['loss']:.3f}")

    def _on_generation(self, data: dict[str, Any]) -> None:
        fitness = "" if self._metric == "accuracy" else f", fitness {data['best_fitness']:.4g}"
        note = f"best val {data['best_accuracy']:.1%}{fitness}, {data['best_parameters']:,} parameters"
        self._set("search", self._generations, data["generation"] + 1, note)

    def _on_finals(self, data: dict[str, Any]) -> None:
        self._set("finals", max(data["finalists"], 1), data["done"], f"rung {data['rung']} of {data['rungs']}")

    def _on_finalist(self, data: dict[str, Any]) -> None:
        self._best_finalist = max(self._best_finalist, data["accuracy"])
        self._another(f"{data['source']}: val {data['accuracy']:.1%}, best {self._best_finalist:.1%}")

    def _on_finalist_diverged(self, data: dict[str, Any]) -> None:
        self._another(f"{data['source']} diverged at rate {data['learning_rate']:.3g}")

    def _another(self, note: str) -> None:
        task = self._progress.tasks[self._tasks["finals"]]
        self._set("finals", int(task.total or 1), int(task.completed) + 1, note)

    def _set(self, name: str, total: int, completed: int, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, note=note)
        self._progress.update(self._tasks[name], total=total, completed=completed, note=note)
