"""docker-compose.yml, deploy/ and .env.example agree with the Compose specification, with the code, and with each other."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from jsonschema import Draft7Validator
from moto.server import ThreadedMotoServer

from services.settings import Settings
from services.store.blobs import BlobStore

from . import compose
from .compose import COMPOSE_FILE, EXAMPLE_FILE, ROOT

SERVICES = sorted(compose.services())
OURS = [name for name in SERVICES if "build" in compose.services()[name]]
RAY_NODES = ["ray-head", "ray-worker", "ray-worker-gpu", "scheduler"]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def copied_sources() -> list[str]:
    """What the Dockerfile copies from the build context."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(), flags=re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def started_modules() -> list[tuple[str, str]]:
    """Each service with each `python -m` module that its command starts, in scripts of this repository too."""
    found = []
    for name in OURS:
        words = compose.service_command(name)
        scripts = [(ROOT / word).read_text() for word in words if word.endswith(".sh")]
        found += [(name, module) for text in [" ".join(words), *scripts] for module in re.findall(r"python -m ([\w.]+)", text)]
    return found


def docker_compose(*arguments: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run docker-compose on the file with these variables and no others."""
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed")
    variables = folder / "variables"
    variables.write_text("".join(f"{key}={value}\n" for key, value in environment.items()))
    command = [program, "--file", str(COMPOSE_FILE), "--env-file", str(variables), "--project-directory", str(ROOT), *arguments]
    return subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False)


def test_compose_file_satisfies_the_compose_specification():
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    assert [error.message for error in Draft7Validator(schema).iter_errors(compose.load())] == []


def test_docker_compose_accepts_the_file(tmp_path):
    run = docker_compose("config", "--quiet", environment=compose.example_environment(), folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("variable", ["GLORA_TOKEN", "POSTGRES_PASSWORD", "OBJECTS_ACCESS_KEY", "OBJECTS_SECRET_KEY", "RAY_AUTH_TOKEN"])
def test_a_secret_left_empty_refuses_the_file_and_names_the_secret(variable):
    with pytest.raises(compose.VariableMissing, match=variable):
        compose.load({**compose.example_environment(), variable: ""})


def test_docker_compose_itself_refuses_a_missing_token(tmp_path):
    environment = {**compose.example_environment(), "GLORA_TOKEN": ""}
    run = docker_compose("config", "--quiet", environment=environment, folder=tmp_path)
    assert run.returncode != 0 and "GLORA_TOKEN" in run.stderr


def test_the_example_asks_for_exactly_the_variables_that_the_file_requires():
    required = set(re.findall(r"\$\{(\w+):\?", COMPOSE_FILE.read_text()))
    assert set(compose.required_variables()) == required


def test_the_example_names_every_variable_of_the_file():
    used = set(re.findall(r"\$\{(\w+)", COMPOSE_FILE.read_text())) | compose.passed_on()
    assert set(re.findall(r"^#?(\w+)=", EXAMPLE_FILE.read_text(), flags=re.MULTILINE)) == used


def test_defaults_in_the_example_are_those_of_the_file():
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE_FILE.read_text()))
    named = dict(re.findall(r"^#(\w+)=(.*)$", EXAMPLE_FILE.read_text(), flags=re.MULTILINE))
    assert {name: value for name, value in named.items() if name not in compose.passed_on()} == used


def test_settings_reach_the_processes_that_read_them_and_only_where_they_are_set():
    given = {**compose.example_environment(), "GLORA_USER_QUEUED_JOBS": "5", "GLORA_USERS": '{"ada": "secret"}'}
    api, scheduler = (compose.service_environment(name, given) for name in ("api", "scheduler"))
    assert api["GLORA_USER_QUEUED_JOBS"] == scheduler["GLORA_USER_QUEUED_JOBS"] == "5"
    assert (api["GLORA_USERS"], "GLORA_USERS" in scheduler) == ('{"ada": "secret"}', False)
    assert "GLORA_CLUSTER_CPUS" not in api


def test_docker_compose_passes_settings_on(tmp_path):
    environment = {**compose.example_environment(), "GLORA_USER_QUEUED_JOBS": "5"}
    run = docker_compose("config", environment=environment, folder=tmp_path)
    found = yaml.safe_load(run.stdout)["services"]["api"]["environment"]
    assert (found["GLORA_USER_QUEUED_JOBS"], found.get("GLORA_CLUSTER_CPUS")) == ("5", None)


@pytest.mark.parametrize("file", [COMPOSE_FILE, EXAMPLE_FILE, DOCKERFILE, ROOT / "deploy" / "scheduler.sh"], ids=lambda file: file.name)
def test_every_glora_variable_is_a_setting(file):
    named = {name.lower() for name in re.findall(r"\bGLORA_(\w+)", file.read_text())}
    assert named <= set(Settings.model_fields)


@pytest.mark.parametrize(("name", "module"), started_modules())
def test_every_started_module_can_be_imported(name, module):
    assert importlib.util.find_spec(module) is not None


def test_api_and_scheduler_are_started_as_modules():
    assert dict(started_modules()) == {"api": "services.api", "scheduler": "services.scheduler"}


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_api_publishes_a_port_and_only_on_loopback(name):
    published = compose.services()[name].get("ports", [])
    assert published == (["127.0.0.1:8000:8000"] if name == "api" else [])


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_a_tag_that_stays(name):
    image = compose.services()[name]["image"]
    assert re.fullmatch(r"[\w./-]+:[\w.-]+", image) and not image.endswith(":latest")


def test_the_base_images_of_our_image_have_tags():
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), flags=re.MULTILINE)
    assert bases and all(re.fullmatch(r"[\w./-]+:[\w.-]+", base) and not base.endswith(":latest") for base in bases)


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_drops_all_capabilities_and_restarts(name):
    service = compose.services()[name]
    assert (service["cap_drop"], service["security_opt"], service["restart"]) == (["ALL"], ["no-new-privileges:true"], "unless-stopped")


def test_only_api_and_scheduler_know_the_database():
    assert [name for name in SERVICES if "GLORA_DATABASE_URL" in compose.service_environment(name)] == ["api", "scheduler"]
    assert [name for name in SERVICES if "database" in compose.services()[name]["networks"]] == ["api", "postgres", "scheduler"]


def test_the_api_cannot_reach_ray():
    networks = {name: compose.services()[name]["networks"] for name in SERVICES}
    assert [name for name in SERVICES if "ray" in networks[name]] == RAY_NODES


@pytest.mark.parametrize("name", RAY_NODES)
def test_ray_containers_have_one_network_with_a_way_out(name):
    document = compose.load()
    assert [net for net in document["services"][name]["networks"] if not document["networks"][net].get("internal")] == ["ray"]


@pytest.mark.parametrize("name", RAY_NODES)
def test_ray_nodes_share_image_and_token_and_fit_their_object_store_into_shared_memory(name):
    service, head = compose.services()[name], compose.services()["ray-head"]
    store = int(re.findall(r"\d{6,}", " ".join(compose.service_command(name)))[0])
    assert service["image"] == head["image"]
    assert compose.service_environment(name)["RAY_AUTH_TOKEN"] == compose.service_environment("ray-head")["RAY_AUTH_TOKEN"]
    assert store < int(service["shm_size"].removesuffix("gb")) * 2**30


@pytest.mark.parametrize("name", OURS)
def test_our_containers_send_no_usage_statistics_and_see_data_read_only(name):
    assert compose.service_environment(name)["RAY_USAGE_STATS_ENABLED"] == "0"
    assert compose.services()[name]["volumes"][0].endswith(":/data:ro")
    assert json.loads(compose.service_environment(name)["GLORA_DATA_ROOTS"]) == ["/data"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_others_wait_for_has_a_healthcheck(name):
    waited_for = [other for other in SERVICES if name in compose.services()[other].get("depends_on", {})]
    assert not waited_for or "healthcheck" in compose.services()[name]


@pytest.mark.parametrize("source", copied_sources())
def test_what_the_dockerfile_copies_exists(source):
    assert (ROOT / source).exists()


def test_the_build_context_lets_through_exactly_what_the_dockerfile_copies():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied_sources())


@pytest.fixture
def fresh_store(monkeypatch) -> Iterator[BlobStore]:
    """The artifact store that the file names, on an S3 server without a bucket."""
    environment = compose.service_environment("api")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, environment[name])
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    httpx.post(f"{endpoint}/moto-api/reset").raise_for_status()
    yield BlobStore(environment["GLORA_ARTIFACTS_URL"], endpoint)
    server.stop()


def test_the_first_artifact_creates_the_bucket_that_the_file_names(fresh_store):
    digest, _ = fresh_store.put(COMPOSE_FILE)
    assert b"".join(fresh_store.read(digest)) == COMPOSE_FILE.read_bytes()


def test_the_api_is_ready_before_the_first_artifact_exists(fresh_store):
    fresh_store.check()
