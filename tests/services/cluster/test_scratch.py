"""Temporary folders of workers: gone at the end, gone after a kill, and never another's."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cluster.scratch import scratch

_HOLD = """
from services.cluster.scratch import scratch
with scratch() as folder:
    (folder / "state.pt").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, of this process and of those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def other() -> Iterator["subprocess.Popen[str]"]:
    """Another process, in the middle of its use of a folder."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()


def _folder_of(process: "subprocess.Popen[str]") -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def test_a_folder_is_empty_at_first_and_gone_in_the_end(root: Path) -> None:
    with scratch() as folder:
        assert list(folder.iterdir()) == []
        (folder / "state.pt").write_bytes(b"x")
    assert list(root.iterdir()) == []


def test_a_folder_goes_also_when_the_block_raises(root: Path) -> None:
    with pytest.raises(RuntimeError), scratch():
        raise RuntimeError
    assert list(root.iterdir()) == []


def test_a_killed_process_leaves_nothing_once_another_needs_a_folder(other: "subprocess.Popen[str]") -> None:
    left = _folder_of(other)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (left / "state.pt").exists()
    with scratch():
        assert not left.exists()


def test_a_folder_in_use_is_left_alone(other: "subprocess.Popen[str]") -> None:
    used = _folder_of(other)
    with scratch() as mine:
        assert mine != used
    assert (used / "state.pt").exists()
