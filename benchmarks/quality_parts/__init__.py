"""What the quality table is made of: tasks, methods, the order of the tuning, one run, and its record (`benchmarks/quality.py`)."""
