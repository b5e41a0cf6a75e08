"""What the process that Ray's workers are forked from loads: what they need, Ray apart."""

import pandas  # type: ignore[import-untyped]  # noqa: F401  # by ray.train
import timm  # noqa: F401
import torch._dynamo  # noqa: F401  # by the first step of an optimiser

import glora_core.api  # noqa: F401
