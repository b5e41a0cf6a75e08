"""`python -m tests.chaos.report`: prints the kill matrix, as last recorded, into docs/reliability.md."""

import argparse
import sys
from pathlib import Path
from typing import Any

from tests.chaos import record
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.moments import MOMENTS, Moment

PAGE = record.RECORD.with_suffix(".md")
_BEGIN, _END = "<!-- matrix -->", "<!-- /matrix -->"
_UNKNOWN = "–"


def table(document: dict[str, Any]) -> str:
    """The matrix as a Markdown table: seconds to recover."""
    cells = document.get("cells", {})
    head = ["struck ↓ during →", *(moment.title for moment in MOMENTS)]
    lines = [head, ["---"] * len(head), *([fault.title, *(_entry(cells, fault, moment) for moment in MOMENTS)] for fault in FAULTS)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(document: dict[str, Any]) -> str:
    """What was recorded, when, and the last soak."""
    cells = document.get("cells", {})
    names = {f"{fault.name}-{moment.name}" for fault in FAULTS for moment in MOMENTS}
    passed = [cells[name] for name in sorted(names & cells.keys()) if "recovery" in cells[name]]
    days = sorted({cell["on"] for cell in passed})
    when = f", {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
    lines = [f"{len(passed)} of {len(names)} cells passed and recorded{when}."]
    for soak in document.get("soak", {}).values():
        lines.append(
            f"Last soak ({soak['on']}): {soak['jobs']} jobs and {soak['kills']} kills in {soak['seconds'] / 60:.0f} minutes; "
            f"{soak['lost']} lost, {soak['doubled']} doubled."
        )
    return "\n\n".join(lines)


def fill(page: str, document: dict[str, Any]) -> str:
    """The page with its table made anew. Raises ValueError where the page has no place for it."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{PAGE.name} has no {_BEGIN} … {_END}")
    return f"{before}{begin}\n\n{summary(document)}\n\n{table(document)}\n\n{end}{after}"


def _entry(cells: dict[str, Any], fault: Fault, moment: Moment) -> str:
    cell = cells.get(f"{fault.name}-{moment.name}")
    return _UNKNOWN if cell is None else f"✓ {cell['recovery']:.0f} s" if "recovery" in cell else "✗"


def main() -> int:
    """Entry point; with `--check`, 1 if the page is not as it would be made."""
    parser = argparse.ArgumentParser(description="Prints the recorded kill matrix into docs/reliability.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the page is out of date")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    page = arguments.page.read_text()
    made = fill(page, record.read())
    if arguments.check:
        return int(made != page)
    arguments.page.write_text(made)
    print(table(record.read()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
