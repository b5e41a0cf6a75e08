"""The table of the documentation is what was recorded, and nothing else."""

from pathlib import Path

import pytest

from tests.chaos import record
from tests.chaos.plan import every_cell
from tests.chaos.report import PAGE, fill, summary, table


def test_a_recorded_cell_is_in_its_row_and_column_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.note("cells", "api-training", {"recovery": 3.1}, path)
    rows = [line.split("|") for line in table(record.read(path)).splitlines()]
    filled = {(row[1].strip(), column): cell.strip() for row in rows[2:] for column, cell in zip(rows[0], row, strict=True) if "✓" in cell}
    assert filled == {("API process killed, and started again", " supernet training "): "✓ 3 s"}


def test_a_later_run_of_a_cell_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    for recovery in (3.0, 5.0):
        record.note("cells", "api-training", {"recovery": recovery}, path)
    assert record.read(path)["cells"]["api-training"]["recovery"] == 5.0


def test_a_cell_that_failed_last_has_not_passed(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.note("cells", "api-training", {"recovery": 3.0}, path)
    record.note("cells", "api-training", {"failed": True}, path)
    assert "✗" in table(record.read(path))
    assert summary(record.read(path)).startswith(f"0 of {len(every_cell())} cells passed")


def test_the_documentation_is_as_the_record_makes_it() -> None:
    page = PAGE.read_text()
    assert fill(page, record.read()) == page


def test_a_page_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="matrix"):
        fill("# Reliability", {})
