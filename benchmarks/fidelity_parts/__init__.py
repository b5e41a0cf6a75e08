"""What `benchmarks/rank_fidelity.py` is made of: the subnets, the recipes of a supernet, one run of a recipe, statistics, and the table."""
