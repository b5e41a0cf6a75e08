"""A soup taken away: the average of several merged subnets as one plain checkpoint, each member's merge verified by itself."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glora_core.backbones import Transform, outputs
from glora_core.configs import SubnetConfig
from glora_core.data.split import Split
from glora_core.errors import ConfigInvalid
from glora_core.export.checkpoint import Export, check_names, examples_of, merged_network, save_network
from glora_core.export.verify import Verification, verify
from glora_core.layers.adapted import rounded
from glora_core.supernet import Supernet


def export_soup(
    folder: Path,
    members: Iterable[tuple[Supernet, SubnetConfig]],
    classes: tuple[str, ...],
    transform: Transform | None,
    check: Split,
    tokenizer: Any = None,
) -> Export:
    """Write the average of merged subnets: of their weights in float64, rounded once.

    The average of weights is no average of outputs, so that there is no unmerged network to hold it against; what is verified is
    that every member is merged rightly, and what is reported is the member whose merge lost most.

    Args:
        members: supernets over one backbone, and a config of each; one at least. Asked for one after another, so that what makes
            them as they are asked for holds one at a time.
        folder, classes, transform, check, tokenizer: see `export_checkpoint`.

    Raises:
        ConfigInvalid: there are no members, or more or fewer names than outputs.
        ExportMismatch: a member's merge loses more than rounding allows.
    """
    average: _Average | None = None
    for supernet, config in members:
        if average is None:
            if classes or transform is not None:
                check_names(classes, outputs(supernet.backbone))
            average = _Average(supernet.bare())
        average.add(
            verify(supernet, merged_network(supernet, config), config, examples_of(check)), supernet.merged_state(config, torch.float64)
        )
    if average is None:
        raise ConfigInvalid("a soup of no subnets cannot be exported; one at least is needed")
    save_network(folder, average.network(), classes, transform, tokenizer)
    return Export(folder, average.worst)


class _Average:
    """The mean of merged states in float64, rounded once to the dtypes of a plain network; whole numbers are those of the first."""

    def __init__(self, plain: nn.Module) -> None:
        self._plain, self._total, self._count = plain, dict[str, Tensor](), 0
        self._found: list[Verification] = []

    def add(self, found: Verification, state: Mapping[str, Tensor]) -> None:
        """Take in one more member, verified."""
        self._found.append(found)
        self._count += 1
        if not self._total:
            self._total = dict(state)
            return
        for name, value in self._total.items():
            if value.is_floating_point():
                self._total[name] = value + state[name]

    @property
    def worst(self) -> Verification:
        """Of the member whose merge lost most."""
        return max(self._found, key=lambda found: found.merge_error)

    def network(self) -> nn.Module:
        """The plain network with the mean in it."""
        own = self._plain.state_dict()
        mean = {
            name: rounded(value / self._count, own[name].dtype) if value.is_floating_point() else value
            for name, value in self._total.items()
        }
        self._plain.load_state_dict(mean)
        return self._plain
