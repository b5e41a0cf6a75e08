"""A subnet by itself, in kilobytes: one safetensors file with its support tensors, its head, and what they belong to.

With the backbone's own weights it rebuilds the merged network bit by bit, and a file that was damaged on its way is refused.
`glora_core.export.peft` writes the same for users of peft.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from glora_core.backbones.fingerprint import weights_hash
from glora_core.configs import TENSORS, SubnetConfig, decode, encode
from glora_core.errors import AdapterInvalid, ConfigInvalid
from glora_core.evaluation import give_biases
from glora_core.layers.storage import KINDS, check_form
from glora_core.space import LayerShape, SearchSpace
from glora_core.supernet import Supernet

ADAPTER = "adapter.safetensors"
_FORMAT = "glora-adapter/2"


@dataclass(frozen=True)
class Adapter:
    """What an adapter file holds.

    Attributes:
        config: the subnet.
        space: the layers it belongs to, and no other subnet.
        entanglement: the form of storage that its numbers were trained in.
        backbone_sha256: hash of the backbone's weights without head, by `weights_hash`.
        classes: class names, in the order of the head's outputs; empty if unknown.
        tensors: the trained numbers, by their names in a supernet that has this one subnet.
    """

    config: SubnetConfig
    space: SearchSpace
    entanglement: str
    backbone_sha256: str
    classes: tuple[str, ...]
    tensors: dict[str, Tensor]


def write_adapter(path: str | Path, supernet: Supernet, config: SubnetConfig, classes: Sequence[str] = ()) -> Path:
    """Write the numbers that a config uses, and the head, to one file; returns its path.

    Raises:
        ConfigInvalid: the config is not one of the supernet's space.
    """
    cut = supernet.cut(config)
    facts = {
        "config": encode(config),
        "layers": [asdict(shape) for shape in cut.space.layers],
        "new_biases": cut.space.new_biases,
        "entanglement": cut.entanglement,
        "backbone_sha256": weights_hash(supernet.bare()),
        "classes": list(classes),
    }
    tensors, text = cut.trainable_state(), json.dumps(facts)
    save_file(tensors, path, metadata={"format": _FORMAT, "glora": text, "sha256": _digest(text, tensors)})
    return Path(path)


def read_adapter(path: str | Path) -> Adapter:
    """Read a file written by `write_adapter`. Raises AdapterInvalid if it is none, or is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise AdapterInvalid(f"{path} cannot be read as a safetensors file: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise AdapterInvalid(f"{path} is not an adapter of this kind: its format is {metadata.get('format')!r}, accepted is {_FORMAT!r}")
    try:
        facts: dict[str, Any] = json.loads(metadata["glora"])
        config, layers = decode(facts["config"]), [LayerShape(**shape) for shape in facts["layers"]]
        _check_tensors(config, layers, check_form(facts["entanglement"]), tensors)
        space = SearchSpace.of(layers, new_biases=facts["new_biases"]).covering(config)
        adapter = Adapter(config, space, facts["entanglement"], facts["backbone_sha256"], tuple(facts["classes"]), tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AdapterInvalid(f"{path} has damaged facts: {type(error).__name__}: {error}") from error
    if metadata.get("sha256") != _digest(metadata["glora"], tensors):
        raise AdapterInvalid(f"{path} is damaged: what it holds has another sha256 than when it was written")
    return adapter


def _digest(facts: str, tensors: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over the facts, and names, shapes, types and bytes of the tensors in the order of names."""
    digest = hashlib.sha256(facts.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_tensors(config: SubnetConfig, layers: Sequence[LayerShape], form: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless every layer has as many numbers as its config asks for, scales where its form has them, and all are finite.

    Counted before anything is made of the config, whose ranks may be anything.
    """
    for shape, layer in zip(layers, config, strict=True):
        prefix = f"backbone.{shape.name}.support."
        scales = tensors.get(f"{prefix}scales")
        if form == "normalised" and (scales is None or scales.shape != (len(TENSORS), len(KINDS))):
            raise ValueError(f"layer {shape.name!r} lacks scales of shape {(len(TENSORS), len(KINDS))}")
        found = sum(value.numel() for name, value in tensors.items() if name.startswith(prefix) and name != f"{prefix}scales")
        wanted = layer.parameters(shape.in_features, shape.out_features)
        if found != wanted:
            raise ValueError(f"layer {shape.name!r} has {found:,} numbers, and its config {layer.code} asks for {wanted:,}")
    broken = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if broken:
        raise ValueError(f"{len(broken)} tensors hold numbers that are not finite, such as {broken[0]!r}")


def apply_adapter(adapter: Adapter, backbone: nn.Module) -> nn.Module:
    """The plain network that an adapter makes of its backbone, bit for bit the merged checkpoint.

    Args:
        adapter: see `read_adapter`.
        backbone: the unadapted network, a module, with a head of the adapter's size; taken over and changed in place.

    Raises:
        AdapterInvalid: the backbone has other weights, or the adapter's tensors do not fit it.
    """
    found = weights_hash(backbone)
    if found != adapter.backbone_sha256:
        raise AdapterInvalid(f"this adapter belongs to backbone weights {adapter.backbone_sha256[:12]}…, not to {found[:12]}…")
    try:
        supernet = Supernet(backbone, adapter.space, adapter.entanglement)
        supernet.load_trainable_state(adapter.tensors)
        state = supernet.merged_state(adapter.config)
    except ConfigInvalid as error:
        raise AdapterInvalid(f"the adapter's tensors do not fit this backbone or its head: {error}") from error
    plain = supernet.bare()
    give_biases(plain, state)
    plain.load_state_dict(state)
    return plain
