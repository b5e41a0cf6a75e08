"""What a job's runners have printed, as text: the end of each of its last few attempts' logs."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse

from services.api.deps import DatabaseDep
from services.api.problems import ProblemDocument
from services.store import job_logs, jobs
from services.store.models import JobLog

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get(
    "/{job_id}/logs",
    summary="Log of a job",
    response_class=PlainTextResponse,
    responses={404: {"model": ProblemDocument, "description": "No such job."}},
)
def read_logs(
    job_id: str,
    database: DatabaseDep,
    tail: Annotated[int, Query(ge=1, le=100_000, description="Last so many lines.")] = 1000,
) -> PlainTextResponse:
    """What the processes that ran the job have printed, with their tracebacks; of the last five runs the last 64 KiB each.

    A line that begins with `---` opens each run of it. While the job runs, its log is some seconds old. Empty before a job starts.
    """
    with database.read() as session:
        jobs.get(session, job_id)
        lines = [line for row in job_logs.of_job(session, job_id) for line in _lines(row)]
    return PlainTextResponse("".join(f"{line}\n" for line in lines[-tail:]), headers={"Cache-Control": "no-store"})


def _lines(row: JobLog) -> Iterator[str]:
    """One attempt's log by lines, opened by one that says which it is and how much is left out."""
    kept = len(row.text.encode())
    left_out = f", the first {row.size - kept:,} bytes left out" if row.size > kept else ""
    yield f"--- run {row.epoch}, until {row.updated_at:%Y-%m-%d %H:%M:%S} UTC{left_out}"
    yield from row.text.splitlines()
