"""A whole system under test: Ray, and one of two control planes over it.

`cluster` has PostgreSQL and an S3 store, each behind a proxy that can be cut. `disk` has SQLite, and artifacts in a folder,
all on a file system so small that it can be filled.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.store.database import Database
from tests.chaos.inputs import save_digits, save_tiny_vit
from tests.chaos.plane import Plane, files_at
from tests.chaos.proxy import Proxy
from tests.chaos.ray_cluster import RayCluster
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import ENVIRONMENT, s3_server

LEASE_SECONDS = 6.0
HUNG_SECONDS = 10.0
_DISK_BYTES = 64 << 20
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_health_check_period_ms": "1000",
    "RAY_worker_niceness": "0",
    "GLORA_LEASE_SECONDS": str(LEASE_SECONDS),
    "GLORA_HUNG_SECONDS": str(HUNG_SECONDS),
    "GLORA_RESOURCES_SECONDS": "240",
    "GLORA_DESCRIBE_SECONDS": "240",
    "PYTHONPATH": str(Path(__file__).parents[2]),
}


class NoSmallDisk(RuntimeError):
    """A small file system cannot be mounted here: that takes root, and Linux."""


@dataclass(frozen=True)
class System:
    """What a fault has in reach.

    Attributes:
        postgres, database, objects: the server, the proxy before it, and the one before the object store; None on a disk.
        disk: the small file system; None on a cluster.
    """

    root: Path
    ray: RayCluster
    plane: Plane
    data: Path
    backbone: str
    postgres: PostgresServer | None = None
    database: Proxy | None = None
    objects: Proxy | None = None
    disk: Path | None = None

    def make_whole(self) -> None:
        """Start again whatever has been lost."""
        self.ray.start()
        self.plane.start()


@contextmanager
def ground() -> Iterator[tuple[Path, RayCluster, Path, str]]:
    """What both kinds of system stand on: a short folder of their own, Ray, data and backbone."""
    root = Path(tempfile.mkdtemp(prefix="glora-chaos-", dir="/tmp"))  # Ray's sockets have short names only
    (root / "tmp").mkdir()
    ray = RayCluster(root, environment(root))
    try:
        ray.start()
        yield root, ray, save_digits(root / "data"), save_tiny_vit(root / "backbone")
    finally:
        ray.stop()
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def cluster(base: tuple[Path, RayCluster, Path, str], settings: Mapping[str, str] | None = None) -> Iterator[System]:
    """A system over PostgreSQL and S3, with further settings of its control plane. Raises PostgresMissing."""
    root, ray, data, backbone = base
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer(durable=True))
        endpoint = stack.enter_context(s3_server(root / "logs" / "s3.log"))
        direct = stack.enter_context(postgres.fresh_database("glora"))
        database, objects = Proxy(postgres.port), Proxy(int(endpoint.rpartition(":")[2]))
        stack.callback(database.cut)
        stack.callback(objects.cut)
        env = {
            **environment(root, ray),
            **(settings or {}),
            "GLORA_DATABASE_URL": direct.replace(str(postgres.port), str(database.port)),
            "GLORA_ARTIFACTS_URL": "s3://glora/artifacts",
            "GLORA_ARTIFACTS_ENDPOINT": f"http://127.0.0.1:{objects.port}",
        }
        home = root / "cluster"
        plane = Plane(home, home, env, Database(direct), files_at("s3://glora/artifacts", endpoint))
        stack.callback(plane.stop)
        plane.start()
        yield System(root, ray, plane, data, backbone, postgres, database, objects)


@contextmanager
def small_disk(base: tuple[Path, RayCluster, Path, str]) -> Iterator[System]:
    """A system over SQLite and a folder on a small file system. Raises NoSmallDisk."""
    root, ray, data, backbone = base
    with _mounted(root / "disk") as disk, ExitStack() as stack:
        env = {
            **environment(root, ray),
            "GLORA_DATABASE_URL": f"sqlite:///{disk / 'glora.db'}",
            "GLORA_ARTIFACTS_URL": str(disk / "artifacts"),
        }
        plane = Plane(root / "on-disk", disk, env, Database(env["GLORA_DATABASE_URL"]), files_at(str(disk / "artifacts")))
        stack.callback(plane.stop)
        plane.start()
        yield System(root, ray, plane, data, backbone, disk=disk)


def environment(root: Path, ray: RayCluster | None = None) -> Mapping[str, str]:
    """Of every process: loopback, one thread, quick detection of lost nodes, temporary files where leftovers are seen."""
    own = {"TMPDIR": str(root / "tmp"), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    return {**ENVIRONMENT, **_ENVIRONMENT, **own, **({} if ray is None else {"GLORA_RAY_ADDRESS": ray.address})}


@contextmanager
def _mounted(place: Path) -> Iterator[Path]:
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", place], check=False).returncode:
        raise NoSmallDisk("the full disk is a small file system of its own, which only root may mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
