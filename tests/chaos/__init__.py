"""Faults in a running service: the kill matrix, a scheduler that was stopped past its lease, and a soak."""
