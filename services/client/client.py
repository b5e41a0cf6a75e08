"""A small Python client of the REST surface.

client = Client("http://127.0.0.1:8000", token="…")
job = client.submit({"backbone": {"name": "…"}, "data": {"path": "…"}, "budget": "100k"})
for event in client.events(job["id"]): ...
client.download(job["id"], Path("out"))
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from services.client.download import Cut, Damaged, download
from services.client.errors import AWAY, ServiceError
from services.client.studies import StudyCalls

_CHECKPOINT = ("merged", "timm-config", "transformers-config", "tokenizer", "manifest", "model-card", "adapter")
_FINAL = ("succeeded", "failed", "cancelled")
_RECONNECT_SECONDS = 1.0
_SUBMIT_ATTEMPTS = 4
_TIMEOUT = httpx.Timeout(120, connect=5)
_CHECKED = httpx.Timeout(120, connect=5, read=3600)
"""Of what makes a job or a study: the service reads all of the data before it answers."""


class Client(StudyCalls):
    """Calls one service.

    Args:
        url: where it listens, e.g. `http://127.0.0.1:8000`.
        token: its bearer token, if it asks for one.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ServiceError("the token has characters that an HTTP header cannot carry; copy it again")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with _explained(self.url):
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT)

    def submit(self, request: dict[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """Submit a job; returns it as queued.

        It is sent again a few times if the connection breaks or the service is out of reach for a moment, under one idempotency
        key, so that it becomes one job however often it arrives.

        Args:
            idempotency_key: of your own, to make a later call the same submission; a random one if absent.

        Raises:
            ServiceError: a field is refused, or nothing answers.
        """
        return self._submitted("/v1/jobs", request, idempotency_key)

    def job(self, job_id: str) -> dict[str, Any]:
        """A job with its state, progress, and result or failure."""
        return self._json("GET", f"/v1/jobs/{quote(job_id, safe='')}")

    def jobs(self, state: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The newest jobs, of one state if given."""
        rows: list[dict[str, Any]] = self._json("GET", "/v1/jobs", params={"limit": limit} | ({"state": state} if state else {}))["items"]
        return rows

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Ask for a job's cancellation."""
        return self._act(job_id, "cancel")

    def pause(self, job_id: str) -> dict[str, Any]:
        """Pause a job: what it has in hand is finished and stored, then the cluster is free."""
        return self._act(job_id, "pause")

    def resume(self, job_id: str) -> dict[str, Any]:
        """Put a paused job back into the queue; it goes on where it was."""
        return self._act(job_id, "resume")

    def extend(self, job_id: str, generations: int, *, idempotency_key: str | None = None, **changes: Any) -> dict[str, Any]:
        """A new job that goes on from a succeeded one for so many more generations; sent again as `submit` does."""
        return self._made_from(job_id, "extend", {"generations": generations, **changes}, idempotency_key)

    def fork(self, job_id: str, *, idempotency_key: str | None = None, **changes: Any) -> dict[str, Any]:
        """A new job over the supernet of another, with another `budget`, `seed`, or fields of `search` and `finals`; sent again too."""
        return self._made_from(job_id, "fork", changes, idempotency_key)

    def clone(self, job_id: str, *, idempotency_key: str | None = None, **changes: Any) -> dict[str, Any]:
        """A new job by the request of another, with any of its fields changed, parts field by field; sent again too."""
        return self._made_from(job_id, "clone", changes, idempotency_key)

    def delete(self, job_id: str) -> None:
        """Delete a job that is over, with its files; supernets and evaluations stay."""
        self._delete(f"/v1/jobs/{quote(job_id, safe='')}")

    def logs(self, job_id: str, tail: int = 1000) -> str:
        """The last lines that the job's processes have printed."""
        with _explained(self.url):
            response = self._http.get(f"/v1/jobs/{quote(job_id, safe='')}/logs", params={"tail": tail})
        _raise_for(response)
        return response.text

    def artifacts(self, job_id: str) -> list[dict[str, Any]]:
        """A job's artifacts."""
        rows: list[dict[str, Any]] = self._json("GET", f"/v1/jobs/{quote(job_id, safe='')}/artifacts")["items"]
        return rows

    def events(self, job_id: str, after: int = 0, patience_seconds: float = 60.0) -> Iterator[dict[str, Any]]:
        """Events of a job from number `after` on until the job is over; a lost connection is taken up where it broke.

        Raises:
            ServiceError: no such job, or the service was out of reach for `patience_seconds`.
        """
        last, alive = after, time.monotonic()
        while True:
            heard = False
            try:
                for event in self._stream(job_id, last):
                    heard, alive = True, time.monotonic()
                    if event is None:
                        continue
                    last = event["sequence"]
                    yield event
                    if event["kind"] in _FINAL:
                        return
                if not heard and self.job(job_id)["state"] in _FINAL:
                    return
            except (httpx.TransportError, httpx.InvalidURL, ServiceError) as error:
                if isinstance(error, ServiceError) and error.status not in (0, *AWAY):
                    raise
                if time.monotonic() - alive > patience_seconds:
                    raise ServiceError(f"{self.url} has been out of reach for {patience_seconds:.0f} s: {error}") from error
            time.sleep(_RECONNECT_SECONDS)

    def download(self, job_id: str, folder: Path, on_bytes: Callable[[int], None] = lambda count: None) -> Path:
        """Download a finished job's checkpoint folder (weights, config, manifest, of texts the tokenizer); returns the folder.

        A download that was cut goes on where it stopped, also when it is called again.

        Raises:
            ServiceError: the job is not finished, the connection breaks for good, or the bytes do not have the hash that the service names.
        """
        job = self.job(job_id)
        if job["state"] != "succeeded":
            raise ServiceError(f"job {job_id} is {job['state']}; only a succeeded job has a checkpoint to download", 409)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(f"cannot write to {folder}: {error.strerror}") from error
        for artifact in self.artifacts(job_id):
            if artifact["kind"] in _CHECKPOINT:
                self._fetch(artifact, folder / Path(artifact["name"]).name, on_bytes)
        return folder

    def _made_from(self, job_id: str, action: str, asked: dict[str, Any], idempotency_key: str | None) -> dict[str, Any]:
        return self._submitted(f"/v1/jobs/{quote(job_id, safe='')}/{action}", asked, idempotency_key)

    def _submitted(self, path: str, request: dict[str, Any], idempotency_key: str | None) -> dict[str, Any]:
        """What was created, sent again under one key where the connection broke."""
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        for attempt in range(1, _SUBMIT_ATTEMPTS + 1):
            try:
                return self._json("POST", path, json=request, headers=headers, timeout=_CHECKED)
            except ServiceError as error:
                if attempt == _SUBMIT_ATTEMPTS or not _passing(error, attempt):
                    raise
            time.sleep(_RECONNECT_SECONDS * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")

    def _delete(self, path: str) -> None:
        with _explained(self.url):
            response = self._http.request("DELETE", path)
        _raise_for(response)

    def _act(self, job_id: str, action: str) -> dict[str, Any]:
        return self._json("POST", f"/v1/jobs/{quote(job_id, safe='')}/{action}")

    def _fetch(self, artifact: dict[str, Any], target: Path, on_bytes: Callable[[int], None]) -> None:
        try:
            with _explained(self.url):
                download(self._http, artifact, target, on_bytes, _raise_for)
        except (Cut, Damaged) as error:
            raise ServiceError(str(error)) from error
        except OSError as error:
            raise ServiceError(f"cannot write {target}: {error.strerror}") from error

    def _stream(self, job_id: str, after: int) -> Iterator[dict[str, Any] | None]:
        """Events as they come, and None for whatever else shows that the connection lives."""
        timeout = httpx.Timeout(60, connect=5)
        with self._http.stream("GET", f"/v1/jobs/{quote(job_id, safe='')}/events", params={"after": after}, timeout=timeout) as response:
            _raise_for(response)
            for line in response.iter_lines():
                yield json.loads(line[5:]) if line.startswith("data:") else None

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            with _explained(self.url):
                response = self._http.request(method, path, **options)
        except ValueError as error:
            raise ServiceError(f"the request cannot be written as JSON: {error}") from error
        _raise_for(response)
        document = _object(response)
        if document is None:
            raise ServiceError(f"{self.url} answers, but not as this service does: {response.text[:200]!r}", response.status_code)
        return document


def _passing(error: ServiceError, attempt: int) -> bool:
    """Whether a submission may have arrived, or may succeed soon. At first nobody listening is nobody; later it is a restart."""
    if error.status != 0:
        return error.status in AWAY and error.kind != "no-scheduler"
    broken = isinstance(error.__cause__, httpx.NetworkError | httpx.RemoteProtocolError | httpx.TimeoutException)
    return broken and not (attempt == 1 and isinstance(error.__cause__, httpx.ConnectError))


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turns what HTTP can fail with into a ServiceError."""
    try:
        yield
    except httpx.ConnectError as error:
        raise ServiceError(f"no service answers at {url}; start one with `glora serve`, or name it with --url or GLORA_URL") from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ServiceError(f"{url}: {error or type(error).__name__}") from error


def _object(response: httpx.Response) -> dict[str, Any] | None:
    """The JSON object that a response carries; None if it carries something else."""
    try:
        document = response.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _raise_for(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    problem = _object(response) or {}
    lines = [f"{error['field']}: {error['message']}" for error in problem.get("errors", [])]
    detail = problem.get("detail") or response.text[:500] or response.reason_phrase
    kind = str(problem.get("type", "")).rpartition(":")[2]
    raise ServiceError("\n".join(lines) or str(detail), response.status_code, kind)
