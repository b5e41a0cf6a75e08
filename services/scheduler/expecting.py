"""How long the job will take: told before anything is trained, and again whenever a phase is over.

The speed is measured by a few steps, unless an earlier job has measured it for the same backbone and training on this cluster.
Events of kind `estimate` hold what was told; nothing else in a job depends on it.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from glora_core.data.text import TextSplit
from glora_core.expected import START, Speed, Work, about, expected, in_words
from services.cluster import resources
from services.cluster.speed import measure_speed
from services.scheduler.context import RunContext
from services.scheduler.finals import scratch_trials
from services.scheduler.prepare import Prepared
from services.scheduler.supernets import key_of, recipe_of, supernet_settings
from services.store import estimates, search_state

_SHORT_SECONDS = 10.0
"""A training that is expected to be shorter than that says little about the speed."""


class Estimate:
    """What is expected of each phase, in seconds, and what those took that are over."""

    def __init__(self, context: RunContext, prepared: Prepared) -> None:
        self._context = context
        self._key = _speed_key(context, prepared)
        self._speed = self._known() or self._measured(prepared)
        self._phases = expected(_work(context, prepared), self._speed)
        self._over = self._restored(prepared)
        left = [name for name in self._phases if name not in self._over]
        self._interrupted = left[0] if left and context.lease.epoch > 1 else None
        self._tell()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note how long a phase takes, and tell what is left after it."""
        start = time.monotonic()
        yield
        self._end(name, time.monotonic() - start)

    def _end(self, name: str, took: float) -> None:
        """A training that was slower, or faster, than expected says that the rest will be. A phase that was over before ends at once."""
        if name in self._over:
            return
        hoped = self._phases[name] - START
        if name != self._interrupted:
            if name == "supernet" and hoped > _SHORT_SECONDS:
                factor = max(took - START, 0.0) / hoped
                self._phases |= {other: self._phases[other] * factor for other in ("search", "finals")}
            self._phases[name] = took
        self._over.append(name)
        self._tell()

    def _measured(self, prepared: Prepared) -> Speed:
        context = self._context
        with context.wanting("process that measures its speed", context.worker_share):
            return measure_speed(prepared.workload, supernet_settings(context), context.worker_share)

    def _known(self) -> Speed | None:
        with self._context.database.read() as session:
            stored = estimates.speed(session, self._context.lease.job_id, self._key)
        return None if stored is None else Speed.from_dict(stored)

    def _restored(self, prepared: Prepared) -> list[str]:
        """Take up what an earlier attempt told, and that a stored supernet needs no time; returns the phases that are over."""
        recipe = recipe_of(self._context, prepared.weights_hash, supernet_settings(self._context))
        with self._context.database.read() as session:
            last = estimates.last(session, self._context.lease.job_id)
            stored = search_state.supernet(session, key_of(recipe)) is not None
        told: dict[str, float] = last["phases"] if last else {}
        over: list[str] = last["over"] if last else []
        self._phases |= told | ({"supernet": 0.0} if stored and "supernet" not in over else {})
        return over

    def _tell(self) -> None:
        left = sum(seconds for name, seconds in self._phases.items() if name not in self._over)
        self._context.emit(
            "estimate",
            {
                "text": in_words(self._phases),
                "left": about(left),
                "seconds": round(sum(self._phases.values()), 1),
                "left_seconds": round(left, 1),
                "phases": {name: round(seconds, 1) for name, seconds in self._phases.items()},
                "over": self._over,
                "speed": self._speed.to_dict(),
                "speed_key": self._key,
            },
        )


def _speed_key(context: RunContext, prepared: Prepared) -> str:
    """What a speed depends on, apart from the machines."""
    training = context.request.training
    decides = {
        "architecture": context.info.architecture,
        "arguments": context.info.arguments,
        "transform": context.info.to_dict()["transform"],
        "space": context.space.to_dict(),
        "tokens": train.input_ids.shape[1] if isinstance(train := prepared.local.train, TextSplit) else None,
        "training": training.model_dump(include={"policy", "subnets", "precision", "augment", "entanglement", "use_gpu"}),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _work(context: RunContext, prepared: Prepared) -> Work:
    request, local = context.request, prepared.local
    compared, baselines = scratch_trials(context)
    return Work(
        training=supernet_settings(context),
        search=request.search.settings(),
        finals=request.played_finals,
        train=len(local.train),
        val=len(local.val) + (len(local.second.examples) if local.second else 0),  # the finals are without, and a little shorter
        test=sum(len(data.splits.get("test", ())) for data in (context.data, *context.also_tests.values())),
        known=len({trial.source for trial in compared or baselines}),
        workers=request.training.workers,
        evaluators=resources.pool_size(request.search.evaluators, context.evaluator_share),
        slots=resources.pool_size(0, context.worker_share),
        retrained=request.train_on_val,
    )
