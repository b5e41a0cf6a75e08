"""Jobs that go through the service's own code, from the queue to the last generation, over a pool whose evaluators cost nothing."""

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from glora_core.backbones import BackboneInfo, BackboneSpec
from glora_core.backbones import describe as describe_backbone
from services.cluster.pool import EvaluatorPool
from services.job_request import JobRequest
from services.scheduler.context import RunContext
from services.scheduler.searching import search
from services.settings import Settings
from services.store import backbones, jobs
from services.store.blobs import BlobStore
from services.store.database import Database
from services.store.jobs import Lease
from services.store.models import Artifact, Backbone, Candidate, Evaluation, Supernet
from services.store.retries import RetryRules

BACKBONE = "vit_small_patch16_224"
_LEASE_SECONDS = 3600.0


@dataclass(frozen=True)
class Pass:
    """One job: candidates stored, evaluations added, seconds from its claim to its last generation, and CPU seconds of this process."""

    candidates: int
    evaluations: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Candidates a second."""
        return self.candidates / self.seconds

    @property
    def cpu_rate(self) -> float:
        """Candidates a CPU second of the process that coordinates."""
        return self.candidates / self.cpu_seconds


@dataclass(frozen=True)
class Coordinator:
    """A migrated database and what jobs on it need."""

    database: Database
    info: BackboneInfo
    folder: Path

    @staticmethod
    def over(url: str, folder: Path) -> "Coordinator":
        """A coordinator over an empty database."""
        database = Database(url)
        database.migrate()
        return Coordinator(database, describe_backbone(BackboneSpec(BACKBONE)), folder)

    def add_supernet(self) -> str:
        """A supernet that nothing was evaluated with; returns its key."""
        key, now = secrets.token_hex(32), datetime.now(UTC)
        with self.database.write() as session:
            session.add(Artifact(id=key[:32], kind="supernet", name="s", media_type="x/y", size=1, sha256=key, created_at=now))
            session.flush()
            session.add(Supernet(key=key, recipe={}, history=[], artifact_id=key[:32], seconds=1.0, created_at=now))
        return key

    def run(self, pool: EvaluatorPool, supernet_key: str, search_settings: dict[str, Any], seed: int) -> Pass:
        """Submit a job, claim it, and search."""
        before = self._count(Evaluation)
        self._submit(search_settings, seed)
        start, cpu = time.perf_counter(), time.process_time()
        context = self._claim(supernet_key)
        search(context, supernet_key, pool)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        with context.fenced() as (session, job):
            jobs.succeed(session, job, {})
        stored = self._count(Candidate, Candidate.job_id == context.lease.job_id)
        return Pass(stored, self._count(Evaluation) - before, seconds, cpu_seconds)

    def _submit(self, search_settings: dict[str, Any], seed: int) -> None:
        request = JobRequest.model_validate(
            {"backbone": {"name": BACKBONE}, "data": {"path": "/nowhere"}, "budget": "100k", "search": search_settings, "seed": seed}
        )
        with self.database.write() as session:
            key = backbones.request(session, {"name": BACKBONE}).key
            backbone = session.get_one(Backbone, key)
            backbone.state, backbone.info = "ready", self.info.to_dict()
            session.flush()
            jobs.create(session, name="stub", request=request.model_dump(mode="json"), backbone_key=key, data={})

    def _claim(self, supernet_key: str) -> RunContext:
        with self.database.write() as session:
            lease = jobs.claim(session, "benchmark", _LEASE_SECONDS, RetryRules())
            assert lease is not None
            job = jobs.get(session, lease.job_id)
            job.supernet_key = supernet_key
            request = JobRequest.model_validate(job.request)
        return self._context(lease, request)

    def _context(self, lease: Lease, request: JobRequest) -> RunContext:
        return RunContext(
            settings=Settings(),
            database=self.database,
            blobs=BlobStore(str(self.folder / "artifacts")),
            lease=lease,
            request=request,
            info=self.info,
            data_facts={},
            workdir=self.folder,
        )

    def _count(self, model: Any, *where: Any) -> int:
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(model).where(*where)) or 0
