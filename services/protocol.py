"""How a fitness is measured: fixed numbers that are part of an evaluation's identity in SQL. Imports nothing."""

BATCH_SIZE = 50
"""Images of one forward pass."""

THREADS = 1
"""Threads of every process that trains or evaluates, so that results do not depend on the machine."""

PROTOCOL = f"accuracy+ce/float32/batch{BATCH_SIZE}/threads{THREADS}"
"""Name of this way of measuring."""
