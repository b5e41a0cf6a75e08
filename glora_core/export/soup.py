"""A soup taken away: the average of several merged subnets as one plain checkpoint, each member's merge verified by itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glora_core.backbones import Transform, outputs
from glora_core.configs import SubnetConfig
from glora_core.data.split import Split
from glora_core.errors import ConfigInvalid
from glora_core.export.checkpoint import Export, check_names, examples_of, merged_network, save_network
from glora_core.export.verify import verify
from glora_core.layers.adapted import rounded
from glora_core.supernet import Supernet


def export_soup(
    folder: Path,
    members: Sequence[tuple[Supernet, SubnetConfig]],
    classes: tuple[str, ...],
    transform: Transform | None,
    check: Split,
    tokenizer: Any = None,
) -> Export:
    """Write the average of merged subnets: of their weights in float64, rounded once.

    The average of weights is no average of outputs, so that there is no unmerged network to hold it against; what is verified is
    that every member is merged rightly, and what is reported is the member whose merge lost most.

    Args:
        members: supernets over one backbone, and a config of each; one at least.
        folder, classes, transform, check, tokenizer: see `export_checkpoint`.

    Raises:
        ConfigInvalid: there are no members, or more or fewer names than outputs.
        ExportMismatch: a member's merge loses more than rounding allows.
    """
    if not members:
        raise ConfigInvalid("a soup of no subnets cannot be exported; one at least is needed")
    if classes or transform is not None:
        check_names(classes, outputs(members[0][0].backbone))
    verified = [verify(supernet, merged_network(supernet, config), config, examples_of(check)) for supernet, config in members]
    plain = members[0][0].bare()
    plain.load_state_dict(average([supernet.merged_state(config, torch.float64) for supernet, config in members], plain.state_dict()))
    save_network(folder, plain, classes, transform, tokenizer)
    return Export(folder, max(verified, key=lambda found: found.merge_error))


def average(states: Sequence[Mapping[str, Tensor]], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean of float64 states, rounded once to the dtypes of `like`; whole numbers are those of the first."""
    return {
        name: rounded(sum((state[name] for state in states[1:]), value) / len(states), like[name].dtype)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
