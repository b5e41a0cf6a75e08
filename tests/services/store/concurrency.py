"""Doing things at once: in threads, or in processes that share nothing but the database."""

import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from typing import Any, Generic, TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 60
"""After which something that hangs fails its test."""


class Background(Generic[T]):
    """A call in a thread of its own, from now on; what it returned or raised is asked for with `result`."""

    def __init__(self, action: Callable[[], T]) -> None:
        self._action = action
        self._outcome: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def give_way(self) -> None:
        """Let the call go as far as it gets: to its end, or to where something of ours blocks it."""
        self._thread.join(0.3)

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait until something is so that the call is to bring about; raises what it raised before, or TimeoutError."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            if not self._thread.is_alive() and not reached():
                self.result()
                raise AssertionError("the call has ended without it")
            if time.monotonic() > end:
                raise TimeoutError("the call hangs")
            time.sleep(0.005)

    def result(self) -> T:
        """What the call returned; raises what it raised, or TimeoutError if it hangs."""
        self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive():
            raise TimeoutError("the call hangs")
        if self._error is not None:
            raise self._error
        return self._outcome[0]

    def _run(self) -> None:
        try:
            self._outcome.append(self._action())
        except BaseException as error:
            self._error = error


def at_once(*actions: Callable[[], T]) -> list[T]:
    """Start all calls at the same moment, each in a thread; returns their results in order, or raises the first error."""
    barrier = threading.Barrier(len(actions))

    def waiting(action: Callable[[], T]) -> Callable[[], T]:
        def run() -> T:
            barrier.wait(PATIENCE_SECONDS)
            return action()

        return run

    return [call.result() for call in [Background(waiting(action)) for action in actions]]


def in_processes(count: int, function: Callable[..., None], *arguments: Any) -> list[str]:
    """Call a module's function in fresh processes at the same moment, with the process's number and `arguments`.

    Returns the traceback of each that failed; none is left running.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    barrier, errors = context.Barrier(count), context.SimpleQueue()
    workers = [context.Process(target=_call, args=(barrier, errors, number, function, arguments), daemon=True) for number in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_SECONDS)
    found = [f"process {number} ended with {worker.exitcode}" for number, worker in enumerate(workers) if worker.exitcode]
    for worker in workers:
        worker.kill()
    while not errors.empty():
        found.append(errors.get())
    return found


def _call(barrier: Barrier, errors: Any, number: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    try:
        barrier.wait(PATIENCE_SECONDS)
        function(number, *arguments)
    except BaseException:
        errors.put(traceback.format_exc())
        raise SystemExit(1) from None
