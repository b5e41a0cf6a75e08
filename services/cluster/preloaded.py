"""What the process that Ray's workers are forked from loads: what they need, Ray apart."""

import importlib
from contextlib import suppress

import timm  # noqa: F401
import torch._dynamo  # noqa: F401  # by the first step of an optimiser

import glora_core.api  # noqa: F401

_BENEATH_RAY = ("google.protobuf.json_format", "jsonschema", "pandas", "pyarrow.dataset", "pydantic.dataclasses", "requests")

for _name in _BENEATH_RAY:
    with suppress(ImportError):
        importlib.import_module(_name)
