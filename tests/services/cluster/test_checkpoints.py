"""The checkpoint to go on from: the latest whole one of any attempt at the same training."""

import io
from pathlib import Path

import fsspec
import pytest
import torch

from services.cluster.checkpoints import latest


def _write(folder: Path, attempt: str, time: str, epoch: int, part: float = 1.0) -> Path:
    """A checkpoint as Ray Train lays it out, or the first part of it."""
    place = folder / attempt / f"checkpoint_2026-11-25_10-00-{time}.000000"
    place.mkdir(parents=True)
    buffer = io.BytesIO()
    torch.save({"epoch": epoch}, buffer)
    content = buffer.getvalue()
    (place / "state.pt").write_bytes(content[: int(len(content) * part)])
    return place


def _latest(folder: Path, prefix: str = "k-") -> int | None:
    state = latest(fsspec.filesystem("file"), str(folder), prefix)
    return None if state is None else int(state["epoch"])


def test_latest_of_all_attempts_is_the_one_to_go_on_from(tmp_path: Path) -> None:
    _write(tmp_path, "k-j1-1", "03", 30)
    _write(tmp_path, "k-j2-5", "07", 70)
    _write(tmp_path, "k-j1-2", "05", 50)
    _write(tmp_path, "other-j1-1", "09", 90)

    assert _latest(tmp_path) == 70


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_checkpoint_that_is_just_being_written_is_passed_over(tmp_path: Path, part: float) -> None:
    _write(tmp_path, "k-j1-1", "03", 30)
    _write(tmp_path, "k-j1-1", "04", 40, part)

    assert _latest(tmp_path) == 30


def test_training_without_checkpoints_starts_anew(tmp_path: Path) -> None:
    assert _latest(tmp_path) is None
    (tmp_path / "k-j1-1").mkdir()
    (tmp_path / "k-j1-1" / "checkpoint_manager_snapshot.json").write_text("{}")

    assert _latest(tmp_path) is None


def test_training_folder_that_is_not_there_has_no_checkpoints(tmp_path: Path) -> None:
    assert _latest(tmp_path / "none") is None
