"""Ray Tune alone: the same stub as trials, nothing else; no database, no search, no artifacts of anybody's own."""

import os
import tempfile
import time
from collections.abc import Sequence

from ray import tune

from benchmarks.coordinator_parts.stub import trial

_QUIET = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}


def trials_per_second(codes: Sequence[str], cpus: int) -> float:
    """One trial for each subnet, with what makes Ray Tune fast: processes serve one trial after another, and no result files."""
    os.environ.update(_QUIET)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(trial, {"cpu": 1}),
            param_space={"code": tune.grid_search(list(codes))},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=cpus),
            run_config=tune.RunConfig(name="stub", storage_path=folder, verbose=0),
        )
        start = time.perf_counter()
        results = tuner.fit()
        seconds = time.perf_counter() - start
    assert len(results) == len(codes) and not results.errors
    return len(codes) / seconds
