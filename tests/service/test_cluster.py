"""The cluster's form: the very commands of docker-compose.yml started as processes, with PostgreSQL and an S3 store."""

import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services import processes
from services.client import Client
from tests.deploy.compose import service_command, service_environment
from tests.servers.ports import free_port
from tests.servers.postgres import PostgresMissing, PostgresServer
from tests.servers.s3 import ENVIRONMENT, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

ROOT = Path(__file__).parents[2]
READY_SECONDS = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """API, scheduler, Ray head and Ray worker as in the compose file, over PostgreSQL and S3; a client of the API."""
    logs = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        try:
            postgres = stack.enter_context(PostgresServer())
        except PostgresMissing as missing:
            pytest.skip(str(missing))
        endpoint = stack.enter_context(s3_server(logs / "s3.log"))
        head, port, token = f"127.0.0.1:{free_port()}", free_port(), secrets.token_hex(16)
        overrides = {
            **ENVIRONMENT,
            "GLORA_DATABASE_URL": stack.enter_context(postgres.fresh_database("glora")),
            "GLORA_ARTIFACTS_ENDPOINT": endpoint,
            "GLORA_DATA_ROOTS": "[]",
            "GLORA_HOME": str(logs),
            "GLORA_HOST": "127.0.0.1",
            "GLORA_PORT": str(port),
            "GLORA_TOKEN": token,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        for name in ("ray-head", "ray-worker", "api", "scheduler"):
            stack.enter_context(_started(name, head, overrides, logs))
            if name == "ray-head":
                time.sleep(5)
        client = Client(f"http://127.0.0.1:{port}", token)
        _wait_until_ready(client, logs)
        yield client


@contextmanager
def _started(name: str, head: str, overrides: Mapping[str, str], logs: Path) -> Iterator[None]:
    """A service of the compose file as a process, with this machine's addresses in place of the compose network's."""
    command = [_localised(word, name, head) for word in service_command(name)]
    command += ["--node-ip-address=127.0.0.1"] if command[0] == "ray" else []
    environment = service_environment(name) | overrides
    process = processes.start(["env", "-C", str(ROOT), *command], log=logs / f"{name}.log", env=environment)
    try:
        yield
    finally:
        processes.stop(process, 2 if command[0] == "ray" else 40)  # Ray would drain its node, with nothing left to drain


def _localised(word: str, name: str, head: str) -> str:
    if word.startswith("--object-store-memory=") or word.isdigit():
        return word.replace("1000000000", "200000000")
    word = word.replace("ray-head:6379", head)
    return f"--port={head.partition(':')[2]}" if name == "ray-head" and word.startswith("--port=") else word


def _wait_until_ready(client: Client, logs: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{client.url}/readyz", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"the API did not become ready:\n{(logs / 'api.log').read_text()[-3000:]}")


def test_job_on_the_cluster_gives_a_checkpoint_from_the_object_store(cluster: Client, request_body: dict[str, Any], tmp_path: Path) -> None:
    # no soup, which has no adapter
    finals = {"candidates": 1, "learning_rates": [0.01], "epochs": [1], "scratch_epochs": 1, "soup": False}
    job = cluster.submit(request_body | {"baselines": True, "finals": finals})
    kinds = [event["kind"] for event in cluster.events(job["id"])]
    over = cluster.job(job["id"])
    assert over["state"] == "succeeded", over["failure"]
    assert kinds.count("generation") == 5
    folder = cluster.download(job["id"], tmp_path / "checkpoint")
    wanted = ["README.md", "adapter.safetensors", "config.json", "manifest.json", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == wanted
