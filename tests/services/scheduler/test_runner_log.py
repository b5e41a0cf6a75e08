"""The end of a runner's log as its scheduler reads it: its own part, bounded, and text that any database stores."""

from pathlib import Path

import pytest

from services.scheduler.runner_log import RunnerLog
from services.store.job_logs import MAX_BYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j1.log"


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_only_what_this_runner_printed_is_read(path: Path) -> None:
    append(path, b"an earlier runner\n")
    log = RunnerLog.beginning(path)
    append(path, b"mine\n")

    assert log.news() == ("mine\n", 5)


def test_log_that_has_not_grown_is_no_news(path: Path) -> None:
    log = RunnerLog.beginning(path)
    assert log.news() is None
    append(path, b"one\n")
    assert log.news() == log.news() == ("one\n", 4)
    log.tell(4)
    assert log.news() is None
    append(path, b"two\n")
    assert log.news() == ("one\ntwo\n", 8)


def test_of_a_long_log_the_end_is_kept_from_a_whole_line_on(path: Path) -> None:
    log = RunnerLog.beginning(path)
    for number in range(20_000):
        append(path, b"line %d\n" % number)

    text, size = log.news() or ("", 0)

    assert size == path.stat().st_size
    assert MAX_BYTES - 100 < len(text.encode()) <= MAX_BYTES
    assert text.endswith("line 19999\n")
    assert all(line.startswith("line ") for line in text.splitlines())


def test_one_line_longer_than_the_bound_is_kept_by_its_end(path: Path) -> None:
    log = RunnerLog.beginning(path)
    append(path, b"x" * (MAX_BYTES + 10) + b"end")

    text, _ = log.news() or ("", 0)

    assert text.endswith("xend") and len(text) == MAX_BYTES


def test_bytes_that_are_no_text_are_left_out(path: Path) -> None:
    log = RunnerLog.beginning(path)
    append(path, b"a\xff\0b\n")

    assert log.news() == ("a␀b\n", 5)


def test_file_that_is_gone_is_no_news(path: Path) -> None:
    append(path, b"one\n")
    log = RunnerLog.beginning(path)
    path.unlink()

    assert log.news() is None
