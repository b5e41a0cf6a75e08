"""A merged network as an ONNX file, checked with onnxruntime. Needs the extra `onnx`.

The check is against the truth: both the ONNX file and torch's float32 network are compared with the same network in
float64, and the file may be no more than a small factor less accurate than torch is.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glora_core.backbones import Inputs, run
from glora_core.errors import ExportMismatch, LibraryMissing

ONNX = "model.onnx"
_FACTOR = 32
"""How much less accurate than torch's float32 the file may be: other summation orders, fused kernels, but no other function."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest error of the ONNX file's and of torch's float32 logits against float64, relative to the largest logit."""

    onnx: float
    torch: float


def write_onnx(path: str | Path, plain: nn.Module, example: Inputs) -> Parity:
    """Write a merged float32 network as ONNX, for any number of examples (and tokens), and check what it computes.

    The inputs are named `images`, or as the transformers model names them; the output is `logits`.

    Args:
        path: of the file; weights are inside it.
        plain: the merged network.
        example: at least two examples of what the network takes.

    Raises:
        LibraryMissing: onnx, onnxscript or onnxruntime is not installed.
        ExportMismatch: the file computes something else; nothing is left at `path` then.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise LibraryMissing(f"ONNX export needs {error.name}; pip install 'glora-nas[onnx]'") from error
    inputs = {"images": example} if isinstance(example, Tensor) else dict(example)
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        _export(plain.eval(), inputs, temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        parity = _parity(session, plain, inputs)
        if not parity.onnx <= _FACTOR * max(parity.torch, torch.finfo(torch.float32).eps):
            raise ExportMismatch(
                f"the ONNX file's logits are off by {parity.onnx:.2e} of the largest, torch's own by {parity.torch:.2e}; "
                f"accepted is {_FACTOR} times as much"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return parity


def _export(plain: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> None:
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    images = inputs.get("images")
    with warnings.catch_warnings(), _without_cache(plain):
        warnings.simplefilter("ignore")  # deprecations inside the exporter, which no reader of ours can act on
        program: Any = torch.onnx.export(
            plain,
            () if images is None else (images,),
            kwargs=dict(inputs) if images is None else None,
            dynamo=True,
            dynamic_shapes=({0: batch},) if images is not None else {name: {0: batch, 1: tokens} for name in inputs},
            input_names=list(inputs),
            output_names=["logits"],
            verbose=False,
        )
    program.save(path, include_initializers=True)


@contextmanager
def _without_cache(plain: nn.Module) -> Iterator[None]:
    """Keep a language model from putting out its cache of keys and values beside the logits."""
    config: Any = getattr(plain, "config", None)
    before = getattr(config, "use_cache", None)
    if before is not None:
        config.use_cache = False
    try:
        yield
    finally:
        if before is not None:
            config.use_cache = before


@torch.inference_mode()
def _parity(session: Any, plain: nn.Module, inputs: Mapping[str, Tensor]) -> Parity:
    """Errors on the example and on one example alone, so that a fixed batch size is found too."""
    exact, errors = deepcopy(plain).double(), {"onnx": 0.0, "torch": 0.0}
    for size in (len(next(iter(inputs.values()))), 1):
        few = {name: value[:size] for name, value in inputs.items()}
        truth = _logits(exact, {name: value.double() if value.is_floating_point() else value for name, value in few.items()})
        answer = session.run(["logits"], {name: value.cpu().numpy() for name, value in few.items()})[0]
        for name, logits in {"onnx": torch.from_numpy(answer), "torch": _logits(plain, few)}.items():
            errors[name] = max(errors[name], float((logits.double() - truth).abs().max() / truth.abs().max().clamp_min(1e-300)))
    return Parity(**errors)


def _logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return run(model, inputs.get("images", inputs)).cpu()
