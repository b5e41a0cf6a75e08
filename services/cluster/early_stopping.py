"""When the training of a study's trial is stopped: Ray Tune's asynchronous successive halving, told one report after another.

Its memory is made again by telling it the same reports in the same order, so a study that is taken up again decides as if it had not
been left.
"""

from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from services.store.study_progress import PROBE, Report

_EPOCH, _LOSS = "epoch", "loss"


@dataclass(frozen=True)
class _Known:
    """A trial as Ray Tune's scheduler tells it from others: by its number in the study, which outlives Ray Tune's own names."""

    trial_id: str


class Halving:
    """Asynchronous successive halving over the probes of trainings of equal length.

    Args:
        grace_epochs: that every trial is given.
        reduction_factor: at each rung, one in so many goes on; the next rung comes after so many times the epochs.
        epochs: of each trial's training.
    """

    def __init__(self, grace_epochs: int, reduction_factor: float, epochs: int) -> None:
        self._factor = reduction_factor
        self._asha = ASHAScheduler(
            time_attr=_EPOCH,
            metric=_LOSS,
            mode="min",
            max_t=epochs,
            grace_period=grace_epochs,
            reduction_factor=reduction_factor,
            stop_last_trials=False,
        )
        self._known: dict[int, _Known] = {}

    def tell(self, report: Report) -> str | None:
        """Why the trial is to be stopped upon this report, for people; None if it goes on."""
        if report.kind != PROBE:
            return None
        none: Any = None  # Ray Tune's controller, of which this scheduler asks nothing
        trial: Any = self._known.get(report.trial)
        if trial is None:
            trial = self._known[report.trial] = _Known(str(report.trial))
            self._asha.on_trial_add(none, trial)
        if self._asha.on_trial_result(none, trial, {_EPOCH: report.step, _LOSS: report.value}) != TrialScheduler.STOP:
            return None
        return (
            f"after epoch {report.step:,} the mean loss on val of its probed subnets was {report.value:.4g}, which is not among the best "
            f"1/{self._factor:g} of the trials that had come there"
        )
