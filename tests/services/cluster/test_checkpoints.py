"""The checkpoint to go on from: the latest whole one of any attempt at the same training."""

from pathlib import Path

import fsspec
import pytest

from services.cluster.checkpoints import latest, load_state, save_state


def _write(folder: Path, attempt: str, name: str, epoch: int, part: float = 1.0) -> Path:
    """A checkpoint as Ray lays it out, or the first part of it."""
    place = folder / attempt / f"checkpoint_{name}"
    place.mkdir(parents=True)
    save_state({"epoch": epoch}, place)
    (file,) = place.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    return place


def _latest(folder: Path, prefix: str = "k-") -> int | None:
    state = latest(fsspec.filesystem("file"), str(folder), prefix)
    return None if state is None else int(state["epoch"])


def test_latest_of_all_attempts_is_the_one_to_go_on_from(tmp_path: Path) -> None:
    _write(tmp_path, "k-j1-1", "2026-11-25_10-00-03.000000", 30)
    _write(tmp_path, "k-j2-5", "2026-11-25_10-00-07.000000", 70)
    _write(tmp_path, "k-j1-2", "2026-11-25_10-00-05.000000", 50)
    _write(tmp_path, "other-j1-1", "2026-11-25_10-00-09.000000", 90)

    assert _latest(tmp_path) == 70


def test_latest_is_told_by_its_epoch_since_ray_tune_numbers_the_checkpoints_of_each_attempt_anew(tmp_path: Path) -> None:
    _write(tmp_path, "rung-1/k", "000007", 90)
    _write(tmp_path, "rung-2/k", "000001", 110)
    _write(tmp_path, "rung-3/other", "000009", 130)

    assert _latest(tmp_path, "k") == 110


def test_state_of_a_checkpoint_is_read_back_and_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    assert load_state(_write(tmp_path, "k", "000000", 7)) == {"epoch": 7}


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_checkpoint_that_is_just_being_written_is_passed_over(tmp_path: Path, part: float) -> None:
    _write(tmp_path, "k-j1-1", "000003", 30)
    _write(tmp_path, "k-j1-1", "000004", 40, part)

    assert _latest(tmp_path) == 30


def test_training_without_checkpoints_starts_anew(tmp_path: Path) -> None:
    assert _latest(tmp_path) is None
    (tmp_path / "k-j1-1").mkdir()
    (tmp_path / "k-j1-1" / "checkpoint_manager_snapshot.json").write_text("{}")

    assert _latest(tmp_path) is None


def test_training_folder_that_is_not_there_has_no_checkpoints(tmp_path: Path) -> None:
    assert _latest(tmp_path / "none") is None
