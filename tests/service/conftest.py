"""One embedded service for the tests of a session, a toy data set, and a toy backbone that trains in seconds."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import delete, select

from services import processes
from services.client import Client
from services.store.database import Database
from services.store.jobs import FINAL
from services.store.models import Evaluation, JobEvent, Supernet

START_SECONDS = 90


@dataclass
class Service:
    """A running embedded service: its process, home folder and client."""

    process: "subprocess.Popen[bytes]"
    home: Path
    client: Client

    def children(self) -> dict[str, int]:
        """Process ids of the service's own processes by their module's name, runners as `runner`."""
        return {name: pid for pid, name in _descendants(self.process.pid).items() if name}

    def wait_for_event(self, job_id: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event of a job for which `wanted` holds; fails the test if the job ends before it."""
        for event in self.client.events(job_id):
            if wanted(event):
                return event
        pytest.fail(f"job {job_id} ended before the awaited event: {self.client.job(job_id)}")

    def kill_after(self, job_id: str, kind: str) -> None:
        """Kill a job's runner at its first event of a kind, sooner than the API tells of it; fails the test if that is too late."""
        self.wait_for_event(job_id, lambda event: event["kind"] == "generation")
        runner, database = self.children()["runner"], Database(f"sqlite:///{self.home / 'glora.db'}")
        told = select(JobEvent.kind).where(JobEvent.job_id == job_id, JobEvent.kind == kind)
        deadline, found = time.monotonic() + 120, False
        while not found and time.monotonic() < deadline:
            time.sleep(0.01)
            with database.read() as session:
                found = session.scalars(told).first() is not None
        kill(runner)
        database.dispose()
        state = self.client.job(job_id)["state"]
        assert found and state not in FINAL, f"job {job_id} was {state} before its runner could be killed"

    def wait(self, job_id: str) -> dict[str, Any]:
        """The job once it is over."""
        for _ in self.client.events(job_id):
            pass
        return self.client.job(job_id)

    def populations(self, job_id: str) -> list[tuple[Any, ...]]:
        """Every candidate of every generation with parents, operator and fitness, in order."""
        rows, cursor = [], None
        while True:
            page = self.client._json(
                "GET", f"/v1/jobs/{job_id}/evaluations", params={"limit": 500} | ({"cursor": cursor} if cursor else {})
            )
            rows += [tuple(sorted((k, str(v)) for k, v in row.items())) for row in page["items"]]
            cursor = page["next"]
            if cursor is None:
                return rows

    def forget(self) -> None:
        """Lose every supernet and evaluation, so that a job like one before has all of its work to do again; costs no new service."""
        database = Database(f"sqlite:///{self.home / 'glora.db'}")
        with database.write() as session:
            for model in (Evaluation, Supernet):
                session.execute(delete(model))
        database.dispose()


def start_service(home: Path, *options: str, **environment: str) -> Service:
    """Start `glora serve` on a free port, with settings by environment, and wait until it answers."""
    log = home / "serve.log"
    command = [sys.executable, "-m", "services.cli", "serve", "--port", "0", "--home", str(home), "--cpus", "2", *options]
    process = processes.start(command, log=log, env={"GLORA_LEASE_SECONDS": "4", "GLORA_RESOURCES_SECONDS": "5"} | environment)
    deadline = time.monotonic() + START_SECONDS
    while not (home / "server.json").exists() or not (home / "server.json").read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            processes.stop(process)
            pytest.fail(f"the service did not start:\n{log.read_text()}")
        time.sleep(0.1)
    record = json.loads((home / "server.json").read_text())
    return Service(process, home, Client(record["url"], record["token"]))


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One embedded service, shared by the tests of this folder."""
    running = start_service(tmp_path_factory.mktemp("home"))
    yield running
    processes.stop(running.process, 30)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 8×8 images: a bright row at a height that tells the class, in noise."""
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in {"train": 20, "val": 10, "test": 12}.items():
        for label in range(3):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 160, (8, 8), dtype=np.uint8)
                pixels[1 + 2 * label] |= 96
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny ViT with random weights, saved as timm's `local-dir:` layout."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbone")
    arguments = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **arguments)
    save_file(model.state_dict(), folder / "model.safetensors")
    pretrained = {
        "input_size": [3, 8, 8],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "classifier": "head",
    }
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": arguments, "pretrained_cfg": pretrained}
    (folder / "config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


@pytest.fixture
def request_body(data: Path, backbone: str) -> dict[str, Any]:
    """A job that takes seconds; without finals, and with one evaluator: each of their processes loads torch."""
    return {
        "name": "toy",
        "backbone": {"name": backbone},
        "data": {"path": str(data)},
        "budget": 700,
        "training": {"epochs": 4, "batch_size": 50, "learning_rate": 0.01},
        "search": {"population": 12, "generations": 5, "evaluators": 1},
        "finals": {"mode": "off"},
        "seed": 3,
    }


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to one process, which may have just ended by itself."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _descendants(root: int) -> dict[int, str]:
    """Process ids below a process, each with the name of the service's module that it runs, or an empty text."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found, frontier = {}, [root]
    while frontier:
        frontier = [pid for pid, parent in parents.items() if parent in frontier]
        found |= {pid: _module(pid) for pid in frontier}
    return found


def _module(pid: int) -> str:
    try:
        words = (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b" ", b"\0").split(b"\0")
    except OSError:
        return ""
    names = {
        b"services.api": "api",
        b"services.scheduler": "scheduler",
        b"services.scheduler.runner": "runner",
        b"services.scheduler.study_runner": "study",
        b"ray.scripts.scripts": "ray",
    }
    actors = {b"ray::Evaluator": "ray-evaluator", b"ray::RayTrainWorker": "training-worker"}
    if words[0].endswith(b"/raylet"):
        return "raylet"
    actor = next((name for title, name in actors.items() if words[0].startswith(title)), "")
    return next((names[word] for word in words if word in names), actor)
