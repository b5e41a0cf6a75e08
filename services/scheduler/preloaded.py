"""What the warm process loads, for the children that are forked from it: see `services.scheduler.warm`."""

import gc

from setproctitle import setproctitle

from services import processes

processes.die_with_parent()
setproctitle("python -m services.scheduler.preloaded")

from services.cluster import sweeping  # noqa: E402
from services.scheduler import describe, runner, study_runner  # noqa: E402

__all__ = ["describe", "runner", "study_runner", "sweeping"]

gc.freeze()  # what is loaded stays shared with the children, of which no collection need look at it
