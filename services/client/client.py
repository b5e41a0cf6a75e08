"""A small Python client of the REST surface.

client = Client("http://127.0.0.1:8000", token="…")
job = client.submit({"backbone": {"name": "…"}, "data": {"path": "…"}, "budget": "100k"})
for event in client.events(job["id"]): ...
client.download(job["id"], Path("out"))
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

_CHECKPOINT = ("merged", "timm-config", "manifest")
_RECONNECT_SECONDS = 1.0


class ServiceError(RuntimeError):
    """The service refused a request or is out of reach; the message is for people, `status` is HTTP's, 0 without an answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """Calls one service.

    Args:
        url: where it listens, e.g. `http://127.0.0.1:8000`.
        token: its bearer token, if it asks for one.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=httpx.Timeout(120, connect=5))

    def submit(self, request: dict[str, Any]) -> dict[str, Any]:
        """Submit a job; returns it as queued. Raises ServiceError if a field is refused."""
        return self._json("POST", "/v1/jobs", json=request)

    def job(self, job_id: str) -> dict[str, Any]:
        """A job with its state, progress, and result or failure."""
        return self._json("GET", f"/v1/jobs/{job_id}")

    def jobs(self, state: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The newest jobs, of one state if given."""
        rows: list[dict[str, Any]] = self._json("GET", "/v1/jobs", params={"limit": limit} | ({"state": state} if state else {}))["items"]
        return rows

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Ask for a job's cancellation."""
        return self._json("POST", f"/v1/jobs/{job_id}/cancel")

    def artifacts(self, job_id: str) -> list[dict[str, Any]]:
        """A job's artifacts."""
        rows: list[dict[str, Any]] = self._json("GET", f"/v1/jobs/{job_id}/artifacts")["items"]
        return rows

    def events(self, job_id: str, after: int = 0, patience_seconds: float = 60.0) -> Iterator[dict[str, Any]]:
        """Events of a job from number `after` on until the job is over; a lost connection is taken up where it broke.

        Raises:
            ServiceError: no such job, or the service was out of reach for `patience_seconds`.
        """
        last, refused = after, 0.0
        while True:
            try:
                for event in self._stream(job_id, last):
                    last, refused = event["sequence"], 0.0
                    yield event
                    if event["kind"] in ("succeeded", "failed", "cancelled"):
                        return
            except httpx.ConnectError as error:
                refused += _RECONNECT_SECONDS
                if refused > patience_seconds:
                    raise ServiceError(f"{self.url} has been out of reach for {patience_seconds:.0f} s") from error
            except httpx.TransportError:
                refused = 0.0
            time.sleep(_RECONNECT_SECONDS)

    def download(self, job_id: str, folder: Path, on_bytes: Callable[[int], None] = lambda count: None) -> Path:
        """Download a finished job's checkpoint folder (weights, timm's config, manifest); returns the folder.

        Raises:
            ServiceError: the job is not finished, or the bytes do not have the hash that the service names.
        """
        job = self.job(job_id)
        if job["state"] != "succeeded":
            raise ServiceError(f"job {job_id} is {job['state']}; only a succeeded job has a checkpoint to download", 409)
        folder.mkdir(parents=True, exist_ok=True)
        for artifact in self.artifacts(job_id):
            if artifact["kind"] in _CHECKPOINT:
                self._fetch(artifact, folder / Path(artifact["name"]).name, on_bytes)
        return folder

    def _fetch(self, artifact: dict[str, Any], target: Path, on_bytes: Callable[[int], None]) -> None:
        part, digest = target.with_name(f"{target.name}.part"), hashlib.sha256()
        with self._http.stream("GET", f"/v1/artifacts/{artifact['id']}/content") as response, part.open("wb") as file:
            _raise_for(response)
            for chunk in response.iter_bytes():
                file.write(chunk)
                digest.update(chunk)
                on_bytes(len(chunk))
        if digest.hexdigest() != artifact["sha256"]:
            part.unlink()
            raise ServiceError(f"{artifact['name']} arrived damaged: its sha256 is not the one the service names; try again")
        part.replace(target)

    def _stream(self, job_id: str, after: int) -> Iterator[dict[str, Any]]:
        timeout = httpx.Timeout(60, connect=5)
        with self._http.stream("GET", f"/v1/jobs/{job_id}/events", params={"after": after}, timeout=timeout) as response:
            _raise_for(response)
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line[5:])

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **options)
        except httpx.ConnectError as error:
            raise ServiceError(
                f"no service answers at {self.url}; start one with `glora serve`, or name it with --url or GLORA_URL"
            ) from error
        except httpx.TransportError as error:
            raise ServiceError(f"{self.url}: {error or type(error).__name__}") from error
        _raise_for(response)
        document: dict[str, Any] = response.json()
        return document


def _raise_for(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    try:
        problem = response.json()
        detail = problem["detail"]
    except (ValueError, KeyError):
        problem, detail = {}, response.text[:500]
    lines = [f"{error['field']}: {error['message']}" for error in problem.get("errors", [])]
    raise ServiceError("\n".join(lines) or detail, response.status_code)
