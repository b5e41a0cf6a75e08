"""Ray: supernet training by Ray Train, candidate evaluation by a pool of actors, single subnets as tasks.

Knows nothing of SQL or HTTP: what it is given are tensors and settings, what it returns are numbers and tensors.
"""
