"""What one call of the evaluator pool has to do: positions to score, in batches, each answered once whoever answers first. Plain Python."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from glora_core.evaluation import Score

VAL = "val"
"""The split that decides."""


@dataclass(eq=False)
class Batch:
    """Some positions of the work; `holders` counts the evaluators that have it, `losses` those that it was lost with."""

    positions: range
    codes: list[str]
    holders: int = 0
    losses: int = 0
    done: bool = False


@dataclass
class Work:
    """Subnet configs by their canonical texts, and the scores found so far, in the same order, on one split."""

    codes: Sequence[str]
    split: str = VAL
    scores: list[Score | None] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    _given: int = 0
    _lost: list[Batch] = field(default_factory=list)
    _answered: int = 0

    def __post_init__(self) -> None:
        self.scores = [None] * len(self.codes)

    @property
    def done(self) -> bool:
        """Whether every position has its score."""
        return self._answered == len(self.codes)

    @property
    def waiting(self) -> int:
        """Evaluations that no evaluator has."""
        return len(self.codes) - self._given + sum(len(batch.codes) for batch in self._lost)

    def take(self, size: int) -> Batch | None:
        """The next batch, at most so large; one that was lost comes first, as it is. None if none waits."""
        if self._lost:
            return self._lost.pop()
        if self._given == len(self.codes):
            return None
        positions = range(self._given, min(self._given + size, len(self.codes)))
        self._given = positions.stop
        batch = Batch(positions, list(self.codes[positions.start : positions.stop]))
        self.batches.append(batch)
        return batch

    @property
    def in_hand(self) -> bool:
        """Whether some evaluator has a batch that nobody has answered."""
        return any(batch.holders > 0 and not batch.done for batch in self.batches)

    def answer(self, batch: Batch, scores: Sequence[Score]) -> bool:
        """Take in a batch's scores; a second answer is the same and changes nothing. Returns whether this was the first."""
        if batch.done:
            return False
        for position, score in zip(batch.positions, scores, strict=True):
            self.scores[position] = score
        batch.done = True
        self._answered += len(batch.codes)
        return True

    def lose(self, batch: Batch) -> None:
        """Note that an evaluator was lost with a batch; it waits again unless another has it or has answered."""
        batch.losses += 1
        if not batch.done and batch.holders == 0:
            self._lost.append(batch)
