"""Exit statuses of a runner, which its scheduler reads. Imports nothing."""

OVER = 0
"""The job is over, or was requeued by the runner itself."""

LOST = 2
"""Another runner owns the job."""

RETRY = 3
"""A failure worth another attempt; the runner has requeued the job."""

STOPPED = 143
"""Stopped by SIGTERM, as when the service shuts down; no attempt was used up."""
