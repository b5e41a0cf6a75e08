"""Whether a setting is a number of the kind that is meant, so that a slip is refused where it is made and by its name.

Python takes `True` for 1 and compares NaN without complaint; what comes of that shows hours later. Plain Python.
"""

import math
from numbers import Integral, Real
from typing import Any

from glora_core.errors import ConfigInvalid


def check_whole(name: str, value: Any, least: int) -> int:
    """The value as an int, if it is an integer of at least `least` and no bool. Raises ConfigInvalid for anything else."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ConfigInvalid(f"{name} is {value!r}; accepted are integers of at least {least}")
    return int(value)


def check_positive(name: str, value: Any, *, zero: bool = False) -> None:
    """Return if the value is a finite number above 0, or 0 where that is accepted. Raises ConfigInvalid for anything else."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (value > 0 or (zero and value == 0)):
        raise ConfigInvalid(f"{name} is {value!r}; accepted are finite numbers {'of at least' if zero else 'above'} 0")


def check_share(name: str, value: Any, *, whole: bool = False) -> None:
    """Return if the value is at least 0 and below 1, or 1 where the whole is accepted. Raises ConfigInvalid for anything else."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not (0 <= value < 1 or (whole and value == 1)):
        raise ConfigInvalid(f"{name} {value!r} must lie between 0 and 1{'' if whole else ', and below 1'}")
