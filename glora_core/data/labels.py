"""What the name of a class may be, and how a refusal shows a value that somebody's file holds: short and printable, whatever it is."""

import re
from typing import Any

from glora_core.errors import DataInvalid

SURROGATE = re.compile("[\ud800-\udfff]")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters and what else ends a line: in a name they would make two lines of one, in logs, pages and lists of classes."""
_SHOWN = 80


def check_name(where: str, name: str) -> None:
    """Raise DataInvalid, naming the place, if a class cannot be called that."""
    if CONTROL.search(name):
        raise DataInvalid(f"{where} is named {short(name)}; accepted is a name on one line, without control characters")


def short(value: Any) -> str:
    """A value as a refusal shows it, however long it is."""
    shown = ascii(value) if isinstance(value, str) and SURROGATE.search(value) else repr(value)
    return _cut(shown)


def plain(text: str) -> str:
    """The same of a text without quotes around it, where it is printable."""
    return _cut(text) if text.isprintable() else short(text)


def _cut(shown: str) -> str:
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}…"
