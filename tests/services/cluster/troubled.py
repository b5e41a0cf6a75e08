"""An evaluator in the place of real ones, for tests of the pool; its process loads no torch, which takes seconds."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Answer(NamedTuple):
    """What the pool hands on, in the place of a score."""

    loss: float


class Troubled:
    """An evaluator that does something the first time that it meets a certain subnet; each evaluation takes a moment."""

    def __init__(self, notes: Path, trouble: str, at: str = "20", always: bool = False) -> None:
        self._notes, self._trouble, self._at, self._always = notes, trouble, at, always
        if trouble == "no start":
            os._exit(1)

    def pid(self) -> int:
        return os.getpid()

    def score(self, codes: Sequence[str], split: str = "val") -> list[Answer]:
        return [self._one(code) for code in codes]

    def _one(self, code: str) -> Answer:
        seen = self._notes / f"seen-{code}"
        first = not seen.exists()
        with seen.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.01)
        if code == self._at and (first or self._always):
            if self._trouble == "die":
                os._exit(1)
            if self._trouble == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
        return Answer(float(code))
