"""What reaches the terminal: names, messages and logs come from a service, whose control characters would steer it.

Everything that the commands print goes through a `Terminal`, or through `printable`.
"""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
"""All of Unicode's category Cc."""


def printable(text: str) -> str:
    """A text without control characters (Unicode's Cc), but for line ends and tabs."""
    return text.translate(_CONTROLS)


class Terminal(Console):
    """A console that prints no control characters but its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of what is printed; rich leaves escape in their text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
