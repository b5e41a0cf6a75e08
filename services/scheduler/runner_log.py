"""The file that a runner prints to, read by the scheduler that started it, so that its end can be kept with the job."""

from dataclasses import dataclass
from pathlib import Path

from services.store.job_logs import MAX_BYTES

_NUL = "\N{SYMBOL FOR NULL}"


@dataclass
class RunnerLog:
    """One runner's part of its job's log file, which earlier runners may have begun.

    Args:
        start: bytes that were in the file before.
    """

    path: Path
    start: int
    told: int = 0

    @classmethod
    def beginning(cls, path: Path) -> "RunnerLog":
        """The log of a runner that is about to start."""
        return cls(path, path.stat().st_size if path.exists() else 0)

    def news(self) -> tuple[str, int] | None:
        """The end of the log and its size in bytes, if it has grown since `tell`; a file that is gone has not grown."""
        try:
            size = self.path.stat().st_size - self.start
            if size <= self.told:
                return None
            with self.path.open("rb") as file:
                file.seek(self.start + max(0, size - MAX_BYTES))
                end = file.read(min(size, MAX_BYTES))
        except OSError:
            return None
        return _text(end, cut=size > MAX_BYTES), size

    def tell(self, size: int) -> None:
        """Note how much of it is stored."""
        self.told = size


def _text(end: bytes, cut: bool) -> str:
    """Bytes as text that any database stores, of a log that was cut from its next whole line on; never longer than the bytes were."""
    if cut:
        end = end.partition(b"\n")[2] or end
    return end.decode(errors="ignore").replace("\0", _NUL)[:MAX_BYTES]
