"""The process of a runner, before it works."""

import sys
from pathlib import Path

from services import processes


def test_a_runner_beats_before_torch_and_ray_are_loaded(tmp_path: Path) -> None:
    code = "import sys, services.scheduler.run; print(sorted({'torch', 'ray'} & set(sys.modules)))"
    process = processes.start([sys.executable, "-c", code], log=tmp_path / "log")
    assert process.wait(120) == 0
    assert (tmp_path / "log").read_text() == "[]\n"
