"""Does every process that works for this job still run, and is any at work? One that falls silent is killed, and Ray starts what it did
again.

Ray waits for ever for a process that is stopped, or hangs below Python. So whatever works for a job beats, from a thread beside its
work, which a long computation does not hold up; the job's runner counts the beats, and goes by their number alone, since a clock would
take a runner that was itself stopped for many silent processes. Imports no torch, so that the process which keeps count is there at once.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

log = logging.getLogger("glora.pulse")

P = ParamSpec("P")
T = TypeVar("T")

_NAME = "pulse"
_BEAT_SECONDS = 2.0
_PATIENCE_SECONDS = 30.0
_LOOKS = 6
"""Looks in a row that find no further beat, after which a process counts as silent; after half of them it counts as at work no more."""


class Member(NamedTuple):
    """A process: its node, its id there, and when it began, by that node's own count, since ids are used again."""

    node: str
    pid: int
    began: str


Beats = tuple[int, bool]
"""How often a process has beaten, and whether it was at work when it last did."""


class Pulse:
    """Counts beats, in a process of its own."""

    def __init__(self) -> None:
        self._beats: dict[Member, Beats] = {}

    def beat(self, member: Member, busy: bool) -> None:
        """Take in a process's beat, and whether it is at work."""
        count, _ = self._beats.get(member, (0, busy))
        self._beats[member] = count + 1, busy

    def beats(self) -> "dict[Member, Beats]":
        """Of all processes."""
        return self._beats

    def forget(self, member: Member) -> None:
        """Count no more for a process that is gone."""
        self._beats.pop(member, None)


@contextmanager
def watched(seconds: float, on_look: Callable[[bool], None] = lambda busy: None) -> Iterator[None]:
    """Kill, while the block runs, each process of this job that beats and then is silent for so long, a few beats at least.

    Args:
        on_look: called from a thread every now and then, with whether any process is at work.
    """
    watch = _Watch(max(seconds / _LOOKS, _BEAT_SECONDS / 2), on_look)
    watch.start()
    try:
        yield
    finally:
        watch.close()


def at_work(function: Callable[P, T]) -> Callable[P, T]:
    """A function of the cluster that whoever runs it is at work for meanwhile."""

    @wraps(function)
    def working(*arguments: P.args, **named: P.kwargs) -> T:
        beat(busy=True)
        try:
            return function(*arguments, **named)
        finally:
            beat()

    return working


def beat(busy: bool = False) -> None:
    """Let this process of the cluster beat from now on, for as long as it lives; returns when it is known where its job is watched.

    Args:
        busy: whether it is at work, until this is called again.
    """
    global _beating
    if not ray.is_initialized():
        return
    with _one:
        if _beating is None:
            _beating = _Beating()
            _beating.start()
    _beating.tell(busy)


def beat_in(actor: Any) -> None:
    """Let the process of an actor beat whose class knows nothing of it; returns at once."""
    actor.__ray_call__.remote(_beat)


def _beat(actor: Any) -> None:
    beat()


class _Beating(threading.Thread):
    """Beats, from a thread of its own: a task whose main thread waits in Ray gives its CPUs to others meanwhile."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name=_NAME)
        self._me = Member(_own_node(), os.getpid(), _began(os.getpid()))
        self._busy, self._now, self._told = False, threading.Event(), threading.Event()

    def run(self) -> None:
        """Beat until the process ends; where nobody counts, or not just now, it is tried again."""
        while True:
            self._now.clear()
            with suppress(ValueError, RayError):
                ray.get(ray.get_actor(_NAME).beat.remote(self._me, self._busy), timeout=_PATIENCE_SECONDS)
            self._told.set()
            self._now.wait(_BEAT_SECONDS)

    def tell(self, busy: bool) -> None:
        """Beat now, and wait for that."""
        self._busy = busy
        self._told.clear()
        self._now.set()
        self._told.wait(_PATIENCE_SECONDS)


_one = threading.Lock()
_beating: _Beating | None = None


class _Watch(threading.Thread):
    """Looks at the beats again and again, and replaces who counts them where that is lost or silent itself."""

    def __init__(self, every: float, on_look: Callable[[bool], None]) -> None:
        super().__init__(daemon=True, name="pulse-watch")
        self._every, self._on_look, self._over = every, on_look, threading.Event()
        self._known: dict[Member, int] = {}
        self._quiet: Counter[Member] = Counter()
        self._kills: dict[tuple[Member, ...], tuple[Any, int]] = {}
        self._pulse = _counting()

    def run(self) -> None:
        """Look until all is over."""
        while not self._over.wait(self._every):
            try:
                self._look(ray.get(self._pulse.beats.remote(), timeout=self._every * _LOOKS))
                self._see_to_kills()
            except RayError:
                self._replace()

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        ray.kill(self._pulse)

    def _replace(self) -> None:
        if not self._over.is_set():
            ray.kill(self._pulse)
            with suppress(ValueError, RayError):  # its name is not free yet; the next look tries again
                self._pulse = _counting()

    def _look(self, beats: dict[Member, Beats]) -> None:
        for member in self._known | beats:
            count, _ = beats.get(member, (0, False))  # none where the count has started again
            self._quiet[member] = self._quiet[member] + 1 if self._known.get(member) == count else 0
            self._known[member] = count
        self._on_look(any(busy and self._quiet[member] < _LOOKS // 2 for member, (_, busy) in beats.items()))
        silent = sorted(member for member in self._known if self._quiet[member] >= _LOOKS)
        for member in silent:
            log.info("process %d on node %s has ended, or hangs and is killed", member.pid, member.node)
            self._pulse.forget.remote(member)
            del self._known[member], self._quiet[member]
        for node, members in groupby(silent, key=lambda member: member.node):
            self._kill(node, tuple(members))

    def _kill(self, node: str, members: tuple[Member, ...]) -> None:
        """On this process's own node at once; most have just ended, and a process started to see that costs a core two seconds."""
        if node == _own_node():
            with suppress(PermissionError):  # where Ray is another user's
                return _kill(members)
        self._kills[members] = _kill_there(node, members), 0

    def _see_to_kills(self) -> None:
        """Forget kills that are done, and try those again that have not been for as long as a process may be silent."""
        for members, (reference, looks) in list(self._kills.items()):
            if _done(reference):
                del self._kills[members]
            else:
                self._kills[members] = (reference, looks + 1) if looks < _LOOKS else (_kill_there(members[0].node, members), 0)


def _counting() -> Any:
    """Starts who counts, on this process's own node: with another one it would be lost more often."""
    here = NodeAffinitySchedulingStrategy(_own_node(), soft=True)
    return ray.remote(num_cpus=0, name=_NAME, scheduling_strategy=here)(Pulse).remote()


def _own_node() -> str:
    """The id of this process's node."""
    return str(ray.get_runtime_context().get_node_id())


def _kill_there(node: str, members: tuple[Member, ...]) -> Any:
    """Has processes killed on their node, by one that is started for that: an idle one might have been stopped as well."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    own = {"env_vars": {"GLORA_KILLS": f"{members[0].pid}-{time.monotonic_ns()}"}}
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there, runtime_env=own)(_kill).remote(members)


def _done(kill: Any) -> bool:
    """Whether a kill is done, or its node gone; what was to kill may have been lost or stopped itself."""
    try:
        ray.get(kill, timeout=0)
    except (GetTimeoutError, WorkerCrashedError):
        return False
    except RayError:
        return True
    return True


def _kill(members: Iterable[Member]) -> None:
    """Runs on their node."""
    for member in members:
        if _began(member.pid) == member.began:
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)


def _began(pid: int) -> str:
    """When a process of this machine began, in ticks since the machine did; empty if there is none, `0` where no system tells."""
    if sys.platform != "linux":
        return "0"
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
