"""A study's trials as trials of Ray Tune: each a process without CPUs beside the driver, which follows its job and reports.

Ray Tune starts them, so many at once, and starts a lost one again. What they report is stored, with what the early stop decides upon
it, in this process: so Ray holds nothing that SQL does not.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from services.cluster.early_stopping import Halving
from services.cluster.pulse import beat
from services.store import study_leases, study_progress
from services.store.database import Database
from services.store.errors import QuotaExceeded
from services.store.models import Study
from services.store.queue import Quotas
from services.store.study_leases import StudyLease
from services.store.study_progress import Report, TrialReader

log = logging.getLogger("glora.study")

_QUIET = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1", "RAY_AIR_NEW_OUTPUT": "0"}
"""No tables of progress, no result files that nobody reads, and no handler of signals in the driver's place."""
_AGAIN_SECONDS = 1.0
_QUOTA_SECONDS = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class Sweep:
    """What a trial's process needs to know of its study.

    Args:
        look_seconds: between two looks at a job.
    """

    database_url: str
    lease: StudyLease
    quotas: Quotas
    look_seconds: float


def run_trials(
    sweep: Sweep, numbers: Iterable[int], *, concurrency: int, halving: Halving | None, told: Iterable[Report], folder: Path
) -> None:
    """Submit and follow these trials; returns when all of their jobs are over.

    Args:
        numbers: of trials whose jobs are not over, or not submitted yet.
        concurrency: trials at once.
        halving: stops trials early, if there is one.
        told: reports that are stored, in their order, of which `halving` has not been told.
        folder: of this driver's own, for what Ray Tune writes down.

    Raises:
        RayError, or what following a job raised: a trial's process failed four times.
    """
    os.environ.update(_QUIET)
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)  # it misses the files that nobody reads
    place = tune.PlacementGroupFactory([{"CPU": 0, f"node:{_own_address()}": 0.001}])
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_follow, sweep=sweep), place),
        param_space={"trial": tune.grid_search(list(numbers))},
        tune_config=tune.TuneConfig(
            scheduler=Recording(Database(sweep.database_url), sweep.lease, halving, told),
            max_concurrent_trials=concurrency,
            reuse_actors=True,
            trial_dirname_creator=lambda started: started.trial_id,
        ),
        run_config=tune.RunConfig(
            name=sweep.lease.study_id, storage_path=str(folder), failure_config=tune.FailureConfig(max_failures=3), verbose=0
        ),
    )
    errors = tuner.fit().errors
    if errors:
        raise errors[0]


def _own_address() -> str:
    """The address under which Ray knows the node that this driver has joined; a node offers a resource of that name."""
    own = ray.get_runtime_context().get_node_id()
    return next(str(node["NodeManagerAddress"]) for node in ray.nodes() if node["NodeID"] == own)


class Recording(FIFOScheduler):  # type: ignore[misc]
    """Starts trials in their order; stores what they report, and stops those that the early stop gives up."""

    def __init__(self, database: Database, lease: StudyLease, halving: Halving | None, told: Iterable[Report]) -> None:
        super().__init__()
        self._database, self._lease, self._halving = database, lease, halving
        self._told = set[tuple[int, str, int]]()
        for report in told:
            self._told.add(report.key)
            if halving is not None:
                halving.tell(report)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray Tune writes down how to restore a run, and nobody restores this one."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Ray Tune, in this process, for each report. One that is stored already, of a trial that was lost, tells nothing."""
        report = _report(trial.config["trial"], result)
        if report.key in self._told:
            return str(TrialScheduler.CONTINUE)
        self._told.add(report.key)
        stop = None if self._halving is None else self._halving.tell(report)
        insist(lambda: self._record(report, stop))
        if stop is None:
            return str(TrialScheduler.CONTINUE)
        log.info("trial %d stopped: %s", report.trial, stop)
        return str(TrialScheduler.STOP)

    def _record(self, report: Report, stop: str | None) -> None:
        with study_leases.fenced(self._database, self._lease) as (session, study):
            study_progress.record(session, study, report, stop)


def insist(act: Callable[[], T]) -> T:
    """Do something with the database, again and again while it is out of reach; a driver whose lease runs out meanwhile is ended."""
    while True:
        try:
            return act()
        except (OperationalError, InterfaceError):
            log.warning("database out of reach", exc_info=True)
            time.sleep(_AGAIN_SECONDS)


def _follow(config: dict[str, Any], sweep: Sweep) -> None:
    """Runs in a trial's process: its job submitted, if it was not yet, and followed until it is over."""
    beat()
    database, number = Database(sweep.database_url), int(config["trial"])
    reader = insist(lambda: _reader(database, sweep, number))
    while True:
        found, over = insist(lambda: _look(database, reader))
        for report in found:
            tune.report({"kind": report.kind, "step": report.step, "value": report.value})
        if over:
            database.dispose()
            return
        time.sleep(sweep.look_seconds)


def _reader(database: Database, sweep: Sweep, number: int) -> TrialReader:
    """A reader of the trial's job that starts after what is stored. Waits while the user has too much in the queue."""
    while True:
        try:
            with study_leases.fenced(database, sweep.lease) as (session, study):
                return _beginning(session, study, number, sweep.quotas)
        except QuotaExceeded as error:
            log.info("trial %d waits: %s", number, error)
            time.sleep(_QUOTA_SECONDS)


def _beginning(session: Session, study: Study, number: int, quotas: Quotas) -> TrialReader:
    return study_progress.reader_of(session, study.id, number, study_progress.submit(session, study, number, quotas))


def _look(database: Database, reader: TrialReader) -> tuple[list[Report], bool]:
    with database.read() as session:
        return reader.look(session)


def _report(trial: int, result: dict[str, Any]) -> Report:
    return Report(trial, result["kind"], int(result["step"]), float(result["value"]))
