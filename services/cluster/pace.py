"""How fast evaluations go, as measured, and what follows from it: how large a batch is, when it is late, and when it is lost.

Nothing of this shows in a result: an evaluation has one value, whoever measures it, and when. Plain Python.
"""

from dataclasses import dataclass

LEAST_SECONDS = 0.02
"""A batch takes a few milliseconds to hand out and take back; below this that would be most of it."""
MOST_SECONDS = 2.0
"""What is lost with an evaluator, and how long a pool that shrinks waits for one."""
LATE_SECONDS = 2.0
LATE_FACTOR = 4.0
HUNG_SECONDS = 30.0
HUNG_FACTOR = 20.0
HUNG_UNKNOWN_SECONDS = 600.0
_WEIGHT = 0.3
_ROUNDS = 2


@dataclass
class Pace:
    """The running mean of what one evaluation takes, in seconds; None until one has been measured."""

    seconds: float | None = None

    def measured(self, evaluations: int, seconds: float) -> None:
        """Take in that a batch of so many took so long."""
        one = seconds / evaluations
        self.seconds = one if self.seconds is None else (1 - _WEIGHT) * self.seconds + _WEIGHT * one

    def batch(self, waiting: int, evaluators: int) -> int:
        """Evaluations of the next batch: one while nothing is known, then a part of the evaluator's share of what waits.

        Batches get smaller towards the end, so that all evaluators end at about the same time, but not so small that handing them out
        would be most of the work, nor so large that one takes long.
        """
        if self.seconds is None:
            return 1
        share = -(-waiting // evaluators)
        least, most = (max(1, int(bound / max(self.seconds, 1e-9))) for bound in (LEAST_SECONDS, MOST_SECONDS))
        return min(share, max(least, min(most, -(-share // _ROUNDS))))

    def late(self, evaluations: int, seconds: float) -> bool:
        """Whether a batch has taken so long that another evaluator should have a try as well."""
        return self.seconds is not None and seconds > max(LATE_SECONDS, LATE_FACTOR * evaluations * self.seconds)

    def hung(self, evaluations: int, seconds: float) -> bool:
        """Whether a batch has taken so long that its evaluator counts as lost."""
        if self.seconds is None:
            return seconds > HUNG_UNKNOWN_SECONDS
        return seconds > max(HUNG_SECONDS, HUNG_FACTOR * evaluations * self.seconds)
