"""Which layers of a model adapt: found by looking at one forward pass, so that it holds for any architecture.

By default all linear layers and convolutions that the pass calls, but the head and the stem (the convolution that reads
the image); glob patterns choose others. Imports torch; knows timm and transformers models by their methods alone.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.data.model_config import resolve_input_data_config
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from glora_core.errors import BackboneUnsupported, ConfigInvalid
from glora_core.layers.adapted import bias_of
from glora_core.layers.kinds import kind_of, matrix_size
from glora_core.space import LayerShape

Inputs = Tensor | Mapping[str, Tensor]
"""What a model takes: images (n, channels, height, width), or the named tensors of a transformers model."""


def run(model: nn.Module, inputs: Inputs) -> Tensor:
    """A model's logits for its inputs."""
    logits: Tensor = model(inputs) if isinstance(inputs, Tensor) else model(**inputs).logits
    return logits


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while, in which a forward pass changes no statistics; each module is given back the mode it had."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def classifier(model: nn.Module) -> nn.Module | None:
    """The trainable head of a model: what is outside the base model of a transformers classifier; None for a language model.

    Raises:
        BackboneUnsupported: a model with several heads, or one that cannot tell which it is.
    """
    known: Any = model
    if hasattr(model, "base_model_prefix"):
        if "CausalLM" in type(model).__name__ or "LMHead" in type(model).__name__:
            return None
        return nn.ModuleList(module for name, module in model.named_children() if name != known.base_model_prefix)
    try:
        head = known.get_classifier()
    except AttributeError as error:  # of some of timm's models, where they are made without a head
        raise BackboneUnsupported(
            f"{type(model).__name__} does not tell what its classifier is: {error}; accepted are models that do"
        ) from error
    if not isinstance(head, nn.Module) or _second_head(model):
        raise BackboneUnsupported(
            f"{type(model).__name__} has several classifiers, such as a distillation or auxiliary head; accepted are models with one"
        )
    return head


def _second_head(model: nn.Module) -> bool:
    """Whether a timm model adds another head's output to its classifier's, as VOLO does, or would do so if it had classes."""
    return isinstance(getattr(model, "aux_head", None), nn.Module) or bool(getattr(model, "use_aux_head", False))


def outputs(model: nn.Module) -> int:
    """How many classes a model's head tells apart; 0 for a language model, which has no head."""
    known: Any = model
    if classifier(model) is None:
        return 0
    return int(known.config.num_labels if hasattr(model, "config") else known.num_classes)


def adapted_layers(model: nn.Module, patterns: Sequence[str] = ()) -> tuple[LayerShape, ...]:
    """The layers that adapt, in the order of the model's modules.

    A layer whose weight or bias the model uses by itself, without calling the layer, or that shares one with another module,
    cannot be adapted by replacing it; neither can a module that has two names. One forward pass tells them apart; it costs
    nothing on the meta device.

    Args:
        patterns: glob patterns over module names; all but stem and head if empty.

    Raises:
        BackboneUnsupported: there is none, or the model cannot be run.
        ConfigInvalid: a pattern matches none that can adapt.
    """
    trace, tied = _trace(model), _tied(model)
    head = classifier(model)
    excluded = set(head.modules()) if head is not None else _outside_base(model)
    names = {
        module: name
        for name, module in model.named_modules()
        if trace.calls.get(module) and module not in excluded and kind_of(module) is not None and module not in tied | trace.bypassed
    }
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names.values()):
            raise ConfigInvalid(f"layers {pattern!r} match no layer that can be adapted; there are layers such as {_few(names.values())}")
    chosen = {
        module: name
        for module, name in names.items()
        if (any(fnmatchcase(name, pattern) for pattern in patterns) if patterns else module is not trace.stem)
    }
    if not chosen:
        raise BackboneUnsupported(f"{type(model).__name__} has no linear layer or convolution to adapt")
    every = {module: name for name, module in model.named_modules()}
    return tuple(_shape(name, module, trace, every) for module, name in chosen.items())


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What one forward pass called: how often each module, the batch norm that read a layer's output, the stem, and the layers
    whose weight or bias something else than the layer has read.

    Seen are all operations on tensors, so that no reader of an output is missed, in whatever form a model writes it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[nn.Module] = Counter()
        self.outputs: dict[int, tuple[nn.Module, Any]] = {}
        self.reads: Counter[nn.Module] = Counter()
        self.norms: dict[nn.Module, nn.Module] = {}
        self.stem: nn.Module | None = None
        self.bypassed: set[nn.Module] = set()
        self._owners = {id(p): module for module in model.modules() if kind_of(module) for p in module.parameters(recurse=False)}
        self._inside: nn.Module | None = None

    def before(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.calls[module] += 1
        self._inside = module
        if isinstance(module, nn.Conv2d) and self.stem is None and not any(isinstance(m, nn.Linear) for m in self.calls):
            self.stem = module
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and id(arguments[0]) in self.outputs:
            self.norms[self.outputs[id(arguments[0])][0]] = module

    def after(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self._inside = None  # a layer calls no other, so that only its own operations run between its hooks
        if kind_of(module) is not None:
            self.outputs[id(output)] = (module, output)  # held, so that no other tensor takes its identity

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs))
        self.reads.update(self.outputs[id(leaf)][0] for leaf in leaves if id(leaf) in self.outputs)
        owners = (self._owners.get(id(leaf)) for leaf in leaves)
        self.bypassed.update(owner for owner in owners if owner is not None and owner is not self._inside)
        return function(*args, **(kwargs or {}))

    def absorber(self, module: nn.Module) -> nn.Module | None:
        """The batch norm that alone reads a layer's output, unchanged and once, and so can take up a bias of the layer."""
        norm = self.norms.get(module)
        alone = norm is not None and self.calls[module] == self.calls[norm] == self.reads[module] == 1
        return norm if alone and isinstance(getattr(norm, "running_mean", None), Tensor) else None


@torch.no_grad()
def _trace(model: nn.Module) -> _Trace:
    trace = _Trace(model)
    hooks = [module.register_forward_pre_hook(trace.before) for module in model.modules()]
    hooks += [module.register_forward_hook(trace.after) for module in model.modules()]
    try:
        with evaluating(model), trace:
            run(model, _example(model))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise BackboneUnsupported(f"{type(model).__name__} cannot be run to find its layers: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return trace


def _tied(model: nn.Module) -> set[nn.Module]:
    """The modules that the model has under several names, or that share a parameter with another."""
    names = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    owners = Counter(id(parameter) for module in names for parameter in module.parameters(recurse=False))
    return {module for module, count in names.items() if count > 1 or any(owners[id(p)] > 1 for p in module.parameters(recurse=False))}


def _example(model: nn.Module) -> Inputs:
    like = next(model.parameters())
    if hasattr(model, "base_model_prefix"):
        return {"input_ids": torch.zeros(1, 4, dtype=torch.long, device=like.device)}
    return torch.zeros(1, *resolve_input_data_config(model)["input_size"], device=like.device, dtype=like.dtype)


def _outside_base(model: nn.Module) -> set[nn.Module]:
    """The modules of a language model that turn its last state into words; they share their weight with the embedding."""
    prefix = str(getattr(model, "base_model_prefix", ""))
    return {module for name, child in model.named_children() if name != prefix for module in child.modules()}


def _shape(name: str, module: nn.Module, trace: _Trace, names: Mapping[nn.Module, str]) -> LayerShape:
    rows, columns = matrix_size(module)
    bias = bias_of(module) is not None
    norm = None if bias else trace.absorber(module)
    return LayerShape(name, columns, rows, bias, names[norm] if norm is not None else "")


def _few(names: Any) -> str:
    listed = list(names)
    return ", ".join(repr(name) for name in (*listed[:2], *listed[-1:]))
