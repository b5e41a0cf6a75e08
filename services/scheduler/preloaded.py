"""What the warm process loads, for the children that it forks."""

from services.cluster import sweeping
from services.scheduler import describe, runner, study_runner

__all__ = ["describe", "runner", "study_runner", "sweeping"]
