"""Data sets in: folders scanned and checked without torch (`folders`), splits as tensors (`images`)."""
