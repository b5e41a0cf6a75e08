"""The precisions that a forward pass may have, by name. Plain Python, no torch."""

from typing import Literal, get_args

from glora_core.errors import ConfigInvalid

Precision = Literal["float32", "bfloat16"]


def check_precision(name: Precision) -> Precision:
    """The name, if there is such a precision. Raises ConfigInvalid for any other."""
    if name not in get_args(Precision):
        raise ConfigInvalid(f"precision {name!r} is unknown; accepted: {', '.join(get_args(Precision))}")
    return name
