"""Search spaces by name: the usual one, the paper's, its variant of larger ranks, and the known methods as spaces of one subnet.

Plain Python, no torch.
"""

import re
from collections.abc import Sequence

from glora_core.errors import ConfigInvalid
from glora_core.methods import METHODS, method_config
from glora_core.space import LayerShape, SearchSpace

RANKS = {"glora": (1, 2, 4), "paper": (4,), "paper-multirank": (2, 4, 8)}
"""Of the presets that have every choice."""
PRESETS = (*RANKS, "linear-probe", "bitfit", "ssf", "lora-RANK")


def preset(name: str, layers: Sequence[LayerShape], ranks: Sequence[int] | None = None) -> SearchSpace:
    """The search space of a name over a backbone's layers.

    `glora` has every choice of a layer at ranks 1, 2 and 4, `paper` all 432 at rank 4, `paper-multirank` at ranks 2, 4 and 8; a known
    method (`lora-8` is LoRA of rank 8) is the space whose only subnet is that method.

    Args:
        ranks: instead of those of `glora`, `paper` or `paper-multirank`.

    Raises:
        ConfigInvalid: no such preset, or ranks for a known method.
    """
    if name in RANKS:
        return SearchSpace.of(layers, ranks or RANKS[name])
    lora = re.fullmatch(r"lora-([1-9][0-9]{0,3})", name)
    if (not lora and name not in METHODS) or name == "lora":
        raise ConfigInvalid(f"preset {name!r} is unknown; accepted: {', '.join(PRESETS)}")
    if ranks:
        raise ConfigInvalid(f"preset {name!r} is a single subnet and takes no ranks")
    full = SearchSpace.of(layers)
    return full.covering(method_config(full, "lora" if lora else name, int(lora[1]) if lora else None))
