import pytest

from benchmarks.quality_parts.runs import Records
from benchmarks.quality_parts.tasks import Task
from tests.benchmarks.made_up import make_task


@pytest.fixture(scope="session")
def task(tmp_path_factory) -> Task:
    return make_task(tmp_path_factory.mktemp("vit"))


@pytest.fixture
def records(tmp_path) -> Records:
    return Records(tmp_path / "records")
