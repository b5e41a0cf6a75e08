"""transformers models by name: BERT, MiniLM, GPT-2 and their like, as sequence classifiers or as causal language models.

A name is `transformers:` and what `from_pretrained` takes: a folder, or a name on the model hub. transformers is an optional
dependency (the extra `text`).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from glora_core.backbones.adaptable import adapted_layers
from glora_core.backbones.spec import BackboneInfo, BackboneSpec
from glora_core.errors import BackboneUnknown
from glora_core.names import transformers_name

_UNBOUNDED = 10**9
"""Of a tokenizer that says no bound, transformers tells one beyond this."""
_CLASSES = {"classification": "AutoModelForSequenceClassification", "causal-lm": "AutoModelForCausalLM"}


def create(spec: BackboneSpec, *, num_classes: int, pretrained: bool) -> nn.Module:
    """A transformers model.

    Raises:
        BackboneUnknown: transformers is not installed, or the name or its weights cannot be resolved.
    """
    transformers, name = _library(), transformers_name(spec.name) or ""
    for field, value in (("weights", spec.weights), ("image_size", spec.image_size)):
        if value is not None:
            raise BackboneUnknown(f"{field} goes with timm models; {spec.name!r} is a transformers model, named by its folder")
    factory = getattr(transformers, _CLASSES[spec.task])
    try:
        if pretrained and transformers.utils.find_adapter_config_file(name) is not None:
            raise ValueError("it has an adapter_config.json, which names another model as its base; accepted is a whole model")
        arguments = {"num_labels": num_classes} if spec.task == "classification" else {}
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, **arguments)
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = _first(getattr(config, "eos_token_id", None))
        if not pretrained:
            return _padding_as_read(spec, factory.from_config(config, trust_remote_code=False))
        resized = spec.task == "classification"  # a stored head of another number of classes
        model, loading = factory.from_pretrained(
            name, config=config, ignore_mismatched_sizes=resized, output_loading_info=True, trust_remote_code=False
        )
        found_none = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
        lacking = sorted(key for key in found_none if key.startswith(f"{model.base_model_prefix}."))
        if lacking:
            raise ValueError(f"its weights lack {len(lacking)} tensors of this backbone, such as {lacking[0]!r}")
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
        raise BackboneUnknown(_explain(spec, name, error)) from error
    return _padding_as_read(spec, model)


def info(spec: BackboneSpec, model: Any) -> BackboneInfo:
    """The facts of a transformers model."""
    model.config.pad_token_id = None  # with one, GPT-2 looks into the ids for padding, and on the meta device there is nothing to see
    return BackboneInfo(
        architecture=type(model).__name__,
        arguments={},
        parameters=sum(p.numel() for p in model.base_model.parameters()),
        layers=adapted_layers(model, spec.layers),
        transform=None,
        source=transformers_name(spec.name) or "",
        license="",
        max_length=_positions(model),
    )


def tokenizer(spec: BackboneSpec) -> Any:
    """The tokenizer that goes with a transformers model, with a padding token. Raises BackboneUnknown if there is none."""
    name = transformers_name(spec.name) or ""
    try:
        found = _library().AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (ImportError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise BackboneUnknown(f"backbone {spec.name!r} has no tokenizer that can be loaded: {_line(error)}") from error
    if found.pad_token is None:
        found.pad_token = found.eos_token
    return found


def longest(spec: BackboneSpec, reader: Any, positions: int | None) -> int:
    """How many tokens a backbone reads at most: by its tokenizer's own word, and by the positions that it has.

    Args:
        reader: its tokenizer.
        positions: `BackboneInfo.max_length`.

    Raises:
        BackboneUnknown: neither says.
    """
    told = getattr(reader, "model_max_length", None)
    known = [int(bound) for bound in (told, positions) if bound is not None and 0 < bound < _UNBOUNDED]
    if not known:
        raise BackboneUnknown(f"backbone {spec.name!r} does not say how many tokens it reads; give a max_length")
    return min(known)


def tokenizer_hash(reader: Any) -> str:
    """sha256 (hex) over all that decides which tokens a text becomes, but for the length it is cut to."""
    fast = getattr(reader, "backend_tokenizer", None)
    rules = json.loads(fast.to_str()) | {"truncation": None, "padding": None} if fast is not None else reader.get_vocab()
    told = [type(reader).__name__, rules, reader.pad_token_id, reader.padding_side, reader.truncation_side]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _padding_as_read(spec: BackboneSpec, model: Any) -> nn.Module:
    """A classifier that takes for padding what its tokenizer pads with: GPT-2 and its kin answer at the last token that is none.

    Of a folder without a tokenizer, transformers makes one that knows special tokens alone; that one is not asked.
    """
    known: nn.Module = model
    if spec.task == "classification":
        try:
            reader = tokenizer(spec)
        except BackboneUnknown:
            return known
        if len(reader) > len(reader.all_special_tokens) and reader.pad_token_id is not None:
            model.config.pad_token_id = reader.pad_token_id
    return known


def _positions(model: Any) -> int | None:
    """The positions that a model has numbers for; RoBERTa and its kin keep those up to their padding's for no token."""
    found: int | None = getattr(model.config, "max_position_embeddings", None)
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    padding = next((table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None), None)
    return found if found is None or padding is None else found - padding - 1


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise BackboneUnknown("names that begin with transformers: need that library; pip install 'glora-nas[text]'") from error
    return transformers


def _first(value: int | list[int] | None) -> int | None:
    return value[0] if isinstance(value, list) else value


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _explain(spec: BackboneSpec, name: str, error: Exception) -> str:
    if isinstance(error, OSError) and not Path(name).exists():
        return f"backbone {spec.name!r} cannot be fetched: no such folder, and the model hub is out of reach or has no such model"
    return f"backbone {spec.name!r} cannot be created: {type(error).__name__}: {_line(error)}"
