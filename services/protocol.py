"""How a fitness is measured: numbers that are part of an evaluation's identity in SQL. Imports neither torch nor ray."""

from glora_core.precision import Precision

BATCH_SIZE = 50
"""Examples of one forward pass."""

THREADS = 1
"""Threads of every process that trains or evaluates, so that results do not depend on the machine."""


def protocol(precision: Precision) -> str:
    """Name of measuring by forward passes of a precision."""
    return f"accuracy+ce/{precision}/batch{BATCH_SIZE}/threads{THREADS}"


PROTOCOL = protocol("float32")
"""How finals, baselines and exported models are measured, and candidates of a search unless it asks for another precision."""
