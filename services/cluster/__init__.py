"""Ray: supernet training by Ray Train, candidate evaluation by a pool of actors, single subnets trained as trials of Ray Tune.

Knows nothing of SQL or HTTP: what it is given are tensors and settings, what it returns are numbers and tensors.
"""
