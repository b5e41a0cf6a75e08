"""Which weights a model has: one hash over all its tensors, its freshly made head left out."""

import hashlib

from torch import nn

from glora_core.backbones.adaptable import classifier


def weights_hash(model: nn.Module) -> str:
    """sha256 (hex) over names, shapes, types and values of a model's tensors, in the order of names; its head is left out."""
    classes = classifier(model)
    head = {id(p) for p in classes.parameters()} if classes is not None else set()
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict(keep_vars=True).items()):
        if id(value) not in head:
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
