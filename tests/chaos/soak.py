"""`python -m tests.chaos.soak`: many small jobs while things are killed at random; nothing may be lost, and nothing done twice.

Jobs are submitted all along, also while the API is down. Those of one seed ask for the same, so they share a supernet and evaluations,
and must come to the same populations and winner.
"""

import argparse
import random
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import func, select

from services.client.errors import ServiceError
from services.store import jobs
from services.store.models import Candidate, Job, JobEvent
from tests.chaos import census, record
from tests.chaos.inputs import smallest_request
from tests.chaos.outcome import done_twice
from tests.chaos.plane import REPLICAS, until
from tests.chaos.remains import remains
from tests.chaos.system import System, cluster, ground
from tests.chaos.trial import STEPS

_SEEDS = 8
_AT_ONCE = 12
"""Jobs that are submitted and not over, at most: submissions go on for most of the time."""
_ATTEMPTS = 25
"""A job must not fail because it was struck often."""


@dataclass
class Soak:
    """One soak over a system.

    Args:
        count: jobs.
        seconds: the least time that it lasts; what is struck is struck as long as a job is left.
        pause: longest time between two kills, in seconds.
    """

    system: System
    count: int
    seconds: float
    pause: float = 20.0
    seed: int = 0
    submitted: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)

    def run(self) -> dict[str, Any]:
        """Submit, strike, wait; returns what is to be recorded."""
        start, chance = time.monotonic(), random.Random(self.seed)
        submitting = threading.Thread(target=self._submit_all, daemon=True)
        submitting.start()
        while submitting.is_alive() or self._left():
            time.sleep(chance.uniform(self.pause / 4, self.pause))
            self._strike(chance)
            self._move()
        left = remains(self.system)
        found = self._verdict()
        return asdict(found) | {"jobs": self.count, "kills": sum(self.kills.values()), "seconds": time.monotonic() - start, "left": left}

    def _move(self) -> None:
        """Let some work be done before the next kill, however slow the machine. Raises TimeoutError if nothing moves any more."""
        before = self._done()
        until(lambda: self._done() > before or not self._left(), "any job to get on")

    def _done(self) -> int:
        """How many pieces of work are finished in all."""

        def ask() -> int:
            with self.system.plane.database.read() as session:
                return session.scalar(select(func.count()).select_from(JobEvent).where(JobEvent.kind.in_(STEPS))) or 0

        found: int = self.system.plane.look(ask)
        return found

    def _submit_all(self) -> None:
        """All jobs, spread over the time that the soak is to last, a bounded number at once."""
        start = time.monotonic()
        for number in range(self.count):
            while self._left() >= _AT_ONCE or time.monotonic() - start < self.seconds * number / self.count:
                time.sleep(0.5)
            self.submitted.append(self._submit(number))

    def _submit(self, number: int) -> str:
        request = smallest_request(self.system.data, self.system.backbone, seed=number % _SEEDS)
        request |= {"name": f"soak-{number}", "finals": {"mode": "off"}}
        request["search"] |= {"generations": 2}
        while True:
            try:
                found: str = self.system.plane.client.submit(request, f"soak-{number}")["id"]
                return found
            except ServiceError as error:
                if error.status not in (0, 500, 503):
                    raise
                time.sleep(1)

    def _left(self) -> int:
        def ask() -> int:
            with self.system.plane.database.read() as session:
                return session.scalar(select(func.count()).select_from(Job).where(Job.state.not_in(jobs.FINAL))) or 0

        found: int = self.system.plane.look(ask)
        return found

    def _strike(self, chance: random.Random) -> None:
        """Kill something, and have it started again as an orchestrator would."""
        names, weights = zip(*_KILLS, strict=True)
        name = chance.choices(names, weights)[0]
        self.kills[name] += 1
        print(f"{self._left()} jobs left; struck: {name}", flush=True)
        getattr(self, f"_{name}")(chance)
        self.system.ray.start()
        self.system.plane.start()

    def _scheduler(self, chance: random.Random) -> None:
        self.system.plane.kill_scheduler(chance.choice(REPLICAS))

    def _runner(self, chance: random.Random) -> None:
        runners = [pid for pid, title in census.alive(self.system.root).items() if "services.scheduler.runner" in title.split()]
        for pid in chance.sample(runners, min(1, len(runners))):
            census.send(pid)

    def _worker(self, chance: random.Random) -> None:
        workers = list(census.ray_workers(self.system.root, busy=True))
        for pid in chance.sample(workers, min(1, len(workers))):
            census.send(pid)

    def _hang(self, chance: random.Random) -> None:
        stopped = census.below(self.system.plane.schedulers[chance.choice(REPLICAS)].pid)
        for number, wait in ((signal.SIGSTOP, chance.uniform(1, 15)), (signal.SIGCONT, 0)):
            for pid in stopped:
                census.send(pid, number)
            time.sleep(wait)

    def _api(self, chance: random.Random) -> None:
        assert self.system.plane.api is not None
        self.system.plane.api.kill()
        self.system.plane.api.wait()

    def _database(self, chance: random.Random) -> None:
        assert self.system.postgres is not None
        self.system.postgres.crash()
        self.system.postgres.restart()

    def _node(self, chance: random.Random) -> None:
        self.system.ray.lose_node()

    def _ray(self, chance: random.Random) -> None:
        self.system.ray.lose_all()

    def _verdict(self) -> "Verdict":
        """What was lost or doubled, over all jobs."""
        plane = self.system.plane
        with plane.database.read() as session:
            rows = session.scalars(select(Job)).all()
            sizes = Counter(session.scalars(select(Candidate.job_id)))
            populations = {row.id: _population(session, row.id) for row in rows}
        succeeded = {row.id for row in rows if row.state == "succeeded"}
        lost = [job_id for job_id in self.submitted if job_id not in succeeded]
        wanted = {row.id: row.request["search"]["generations"] * row.request["search"]["population"] for row in rows}
        lost += [f"{job_id}: {sizes[job_id]} candidates" for job_id, size in wanted.items() if sizes[job_id] != size]
        by_seed: dict[int, set[str]] = {}
        for row in rows:
            by_seed.setdefault(row.request["seed"], set()).add(f"{populations[row.id]} {(row.result or {}).get('winner')}")
        twice = [thing for row in rows for thing in done_twice(plane, row.id)]
        twice += ["more jobs than were submitted"] if len(rows) != self.count else []
        return Verdict(lost, twice, [seed for seed, ends in by_seed.items() if len(ends) > 1])


@dataclass(frozen=True)
class Verdict:
    """Jobs and candidates that are missing, what was done twice, and seeds whose jobs came to different ends."""

    lost: list[str]
    doubled: list[str]
    differing: list[int]


_KILLS = (("runner", 4), ("worker", 4), ("scheduler", 3), ("hang", 2), ("api", 3), ("database", 1), ("node", 1), ("ray", 1))
"""What may be struck, and how often by weight."""


def _population(session: Any, job_id: str) -> list[str]:
    query = select(Candidate.config_hash).where(Candidate.job_id == job_id).order_by(Candidate.generation, Candidate.position)
    return list(session.scalars(query))


def main() -> int:
    """Entry point; 1 if anything was lost, done twice, or left behind."""
    parser = argparse.ArgumentParser(description="Many small jobs while things are killed at random.")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600, help="the least time that it lasts")
    parser.add_argument("--seed", type=int, default=0, help="of what is struck when")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ground() as base, cluster(base, {"GLORA_MAX_ATTEMPTS": str(_ATTEMPTS)}) as system:
        found = Soak(system, arguments.jobs, arguments.seconds, seed=arguments.seed).run()
    wrong = {name: found[name] for name in ("lost", "doubled", "differing", "left") if found[name]}
    print(f"{found['jobs']} jobs, {found['kills']} kills, {found['seconds'] / 60:.1f} minutes: {wrong or 'nothing lost, nothing doubled'}")
    if record.wanted() and not wrong:
        record.note("soak", "last", {**found, "lost": 0, "doubled": 0})
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
