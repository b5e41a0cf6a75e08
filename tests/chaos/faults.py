"""The rows of the matrix: what is lost or out of reach, and how an orchestrator puts it back (Compose, Kubernetes or `glora serve`)."""

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos import census
from tests.chaos.moments import FINALS, GENERATION, QUEUED, TRAINING, Moment
from tests.chaos.plane import until
from tests.chaos.system import LEASE_SECONDS, System

Strike = Callable[[System, str, Moment], None]

OUTAGE_SECONDS = 30.0
FULL_SECONDS = 10.0
_AT_WORK = {TRAINING: "ray::RayTrainWorker", GENERATION: "ray::Evaluator", FINALS: "ray::ImplicitFunc"}
"""By moment, of whose processes the row of workers kills one; at the others it kills every worker process that there is."""


@dataclass(frozen=True)
class Fault:
    """A row.

    Args:
        strike: does it, with the job under way and its moment; returns when it is over and what has to be replaced is being replaced.
        on_disk: whether it takes the system on a small disk.
    """

    name: str
    title: str
    strike: Strike
    on_disk: bool = False


def _worker(system: System, job_id: str, moment: Moment) -> None:
    workers = census.ray_workers(system.root, busy=False)
    chosen = _AT_WORK.get(moment)
    victims = [pid for pid, title in workers.items() if chosen is None or title.startswith(chosen)]
    assert victims or chosen is None, f"there is no {chosen} among {workers}"
    for pid in victims if chosen is None else victims[:1]:
        census.send(pid)


def _hung_worker(system: System, job_id: str, moment: Moment) -> None:
    """All that works for the job hangs for good: not even those that keep count of who is at work are spared."""
    for pid in census.ray_workers(system.root, busy=True):
        census.send(pid, signal.SIGSTOP)


def _node(system: System, job_id: str, moment: Moment) -> None:
    system.ray.lose_node()
    system.ray.start()


def _all_of_ray(system: System, job_id: str, moment: Moment) -> None:
    system.ray.lose_all()
    system.ray.start()


def _scheduler(system: System, job_id: str, moment: Moment) -> None:
    system.plane.kill_scheduler(system.plane.replica_of(job_id))


def _stopped_scheduler(system: System, job_id: str, moment: Moment) -> None:
    """The scheduler and its runner hang until the other replica has taken over, then go on as if they still had the job."""
    before = system.plane.job(job_id).lease_epoch
    stopped = census.below(system.plane.schedulers[system.plane.replica_of(job_id)].pid)
    for pid in stopped:
        census.send(pid, signal.SIGSTOP)
    if moment is not QUEUED:
        until(lambda: system.plane.job(job_id).lease_epoch > before, "another replica to take over")
    for pid in stopped:
        census.send(pid, signal.SIGCONT)


def _api(system: System, job_id: str, moment: Moment) -> None:
    assert system.plane.api is not None
    system.plane.api.kill()
    system.plane.api.wait()
    system.plane.start_api()


def _database_restart(system: System, job_id: str, moment: Moment) -> None:
    assert system.postgres is not None
    system.postgres.crash()
    system.postgres.restart()


def _database_cut(system: System, job_id: str, moment: Moment) -> None:
    """For longer than a lease lasts."""
    assert system.database is not None
    system.database.cut()
    time.sleep(LEASE_SECONDS + 2)
    system.database.restore()


def _objects_out(system: System, job_id: str, moment: Moment) -> None:
    assert system.objects is not None
    system.objects.cut()
    time.sleep(OUTAGE_SECONDS)
    system.objects.restore()


def _disk_full(system: System, job_id: str, moment: Moment) -> None:
    assert system.disk is not None
    ballast = system.disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            _fill(file.write)
            deadline = time.monotonic() + FULL_SECONDS
            while time.monotonic() < deadline:  # what others remove meanwhile is taken as well
                _fill(file.write)
                time.sleep(0.05)
    finally:
        ballast.unlink(missing_ok=True)


def _fill(write: Callable[[bytes], int]) -> None:
    for size in (1 << 20, 1 << 12, 1):
        with contextlib.suppress(OSError):
            while write(b"\0" * size) == size:
                pass


FAULTS = (
    Fault("worker", "evaluator actor / training worker killed", _worker),
    Fault("worker-stopped", "everything that works for the job on the cluster stopped for good", _hung_worker),
    Fault("node", "a whole Ray node killed, and replaced", _node),
    Fault("ray", "Ray head and all of Ray killed, and started again", _all_of_ray),
    Fault("scheduler", "scheduler killed, a second replica takes over", _scheduler),
    Fault("scheduler-stopped", "scheduler and runner stopped past the lease, then continued", _stopped_scheduler),
    Fault("api", "API process killed, and started again", _api),
    Fault("database-restart", "PostgreSQL crashed and restarted", _database_restart),
    Fault("database-cut", "PostgreSQL out of reach for longer than a lease", _database_cut),
    Fault("objects", f"object store out of reach for {OUTAGE_SECONDS:.0f} s", _objects_out),
    Fault("disk", f"disk full for {FULL_SECONDS:.0f} s (database, artifacts, work folders)", _disk_full, on_disk=True),
)
