"""The terminal sees no control characters of a service's."""

import io
import unicodedata

import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from services.client.terminal import Terminal, printable

STEERING = "\x1b[31mred\x07 \x9b2J\r\x7fend"


def test_only_line_ends_and_tabs_are_left_of_unicodes_control_characters() -> None:
    every = "".join(map(chr, range(0x110000)))

    left = printable(every)

    assert [letter for letter in left if unicodedata.category(letter) == "Cc"] == ["\t", "\n"]
    assert len(every) - len(left) == 63


@pytest.mark.parametrize("as_text", [str, Text], ids=["markup", "text"])
def test_cells_of_a_table_steer_nothing(as_text: type[str] | type[Text]) -> None:
    out, table = io.StringIO(), Table("name")
    table.add_row(as_text(STEERING))

    Terminal(file=out, width=80).print(table)

    assert "[31mred 2Jend" in out.getvalue()
    assert {letter for letter in out.getvalue() if unicodedata.category(letter) == "Cc"} == {"\n"}


def test_colours_and_moves_of_the_terminals_own_are_left() -> None:
    out = io.StringIO()
    with Progress(console=Terminal(file=out, width=80, force_terminal=True, color_system="standard")) as progress:
        progress.add_task(STEERING)
        progress.console.print(Text(STEERING, "red"))

    assert "\x1b[31m[31mred 2Jend\x1b[0m" in out.getvalue()
    assert "\x1b[2K" in out.getvalue()
    assert not {"\x07", "\x9b", "\x7f"} & set(out.getvalue())
