"""What every phase of a running job has at hand: the lease, the store, the request, and the search space."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

from sqlalchemy.orm import Session

from glora_core.backbones import BackboneInfo, BackboneSpec
from glora_core.data.labelled import AnyData
from glora_core.data.readers import Reader, reader_of
from glora_core.data.shifted import halves
from glora_core.errors import DataInvalid
from glora_core.space import SearchSpace
from services.backbone_files import check_backbone
from services.cluster.pausing import Paused
from services.cluster.resources import Share
from services.job_data import read_data, read_test
from services.job_request import JobRequest, space_of
from services.settings import Settings
from services.store import events, jobs
from services.store.blobs import BlobStore
from services.store.database import Database
from services.store.jobs import Lease
from services.store.lineage import Origin
from services.store.models import Job


@dataclass(frozen=True, slots=True)
class Wants:
    """Processes that are asked of the cluster at once, by what they are called."""

    name: str
    share: Share
    count: int


@dataclass
class RunContext:
    """One job under one lease. Everything that is written goes through `fenced`.

    Args:
        workdir: a folder of this runner's own, gone when it ends.
        pausing: set while a pause is asked for.
        origin: the job that this one was made from.
        wants: what is asked of the cluster just now, if anything; see `wanting`.
    """

    settings: Settings
    database: Database
    blobs: BlobStore
    lease: Lease
    request: JobRequest
    info: BackboneInfo
    data_facts: dict[str, Any]
    workdir: Path
    pausing: Event = field(default_factory=Event)
    origin: Origin | None = None
    wants: Wants | None = None

    @cached_property
    def space(self) -> SearchSpace:
        """The search space that the job asks for."""
        return space_of(self.request, self.info.layers)

    @cached_property
    def data(self) -> AnyData:
        """The data set, scanned again. Raises DataInvalid if it is not what was submitted, or leads out of the data roots."""
        found = read_data(self.request, self.settings.data_roots)
        if found.fingerprint != self.data_facts["fingerprint"]:
            raise DataInvalid(f"data {self.request.data.path!r} has changed since the job was submitted; submit it again")
        return found

    @property
    def second(self) -> AnyData | None:
        """What the second objective is measured on, a part of a further test set; None if the job has none. Raises as `also_tests`."""
        name = self.request.search.second
        return None if name is None else halves(self._whole_tests[name])[0]

    @cached_property
    def also_tests(self) -> dict[str, AnyData]:
        """What is reported on by name: the further test sets, of that of the second objective the part that nothing was selected by.

        Raises:
            DataInvalid: as `data`, of one of them.
        """
        second = self.request.search.second
        return {name: halves(test)[1] if name == second else test for name, test in self._whole_tests.items()}

    @cached_property
    def _whole_tests(self) -> dict[str, AnyData]:
        """The further test sets by name, scanned again. Raises as `also_tests`."""
        roots = self.settings.data_roots
        found = {name: read_test(self.request, path, self.data, roots) for name, path in self.request.data.also_test.items()}
        for name, test in found.items():
            if test.fingerprint != self.data_facts["also_test"][name]["fingerprint"]:
                raise DataInvalid(f"test set {str(test.root)!r} has changed since the job was submitted; submit it again")
        return found

    @cached_property
    def spec(self) -> BackboneSpec:
        """The backbone that the job asks for. Raises DataInvalid if its files may not be read any more."""
        asked = self.request.backbone
        check_backbone(asked.name, asked.weights, self.settings.data_roots)
        return BackboneSpec.of(asked.model_dump())

    @cached_property
    def reader(self) -> Reader:
        """How the backbone reads the data. Raises BackboneUnknown if its tokenizer cannot be loaded any more, or as `spec`."""
        return reader_of(self.spec, self.info, self.request.data.max_length)

    @property
    def worker_share(self) -> Share:
        """What each training worker, and each trial of the finals, holds of the cluster."""
        return Share(*self.request.resources.worker.amounts(self.request.training.use_gpu))

    @property
    def evaluator_share(self) -> Share:
        """What each evaluator holds of the cluster."""
        return Share(*self.request.resources.evaluator.amounts(self.request.training.use_gpu))

    @contextmanager
    def fenced(self) -> Iterator[tuple[Session, Job]]:
        """A write transaction under the job's lease. Raises LeaseLost if another runner owns the job."""
        with jobs.fenced(self.database, self.lease) as pair:
            yield pair

    def emit(self, kind: str, data: dict[str, Any]) -> None:
        """Append an event to the job's log."""
        with self.fenced() as (session, _):
            events.append(session, self.lease.job_id, kind, data)

    def progressed(self) -> None:
        """Count attempts anew: something durable was reached that no attempt had reached before."""
        with self.fenced() as (_, job):
            job.attempts = 0

    @contextmanager
    def wanting(self, name: str, share: Share, count: int = 1) -> Iterator[None]:
        """Note while the block runs that so many processes of a name, with a share of the cluster each, are asked of it."""
        self.wants = Wants(name, share, count)
        try:
            yield
        finally:
            self.wants = None

    def pause_here(self) -> None:
        """Raise Paused if a pause is asked for; called where all that was done is stored."""
        if self.pausing.is_set():
            raise Paused

    def enter(self, phase: str) -> None:
        """Note the phase that the job has reached. Raises Paused if a pause is asked for."""
        self.pause_here()
        with self.fenced() as (session, job):
            jobs.enter_phase(session, job, phase)
