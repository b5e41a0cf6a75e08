"""Parts of the paper's VTAB-1K recipe: what survives being killed, and what a run will cost."""
