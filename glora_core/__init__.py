"""GLoRA supernets, their search and their merge: pure PyTorch, knows nothing of Ray, SQL or HTTP.

The torch-free vocabulary (`space`, `methods`, `sampling`, `search`, `data.folders`, `errors`) can be imported alone.
"""

__version__ = "0.2.0"
