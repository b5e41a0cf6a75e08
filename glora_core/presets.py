"""Search spaces by name: the paper's, its variant of several ranks, and the known methods as spaces of one subnet.

Plain Python, no torch.
"""

import re
from collections.abc import Sequence

from glora_core.errors import ConfigInvalid
from glora_core.methods import METHODS, method_config
from glora_core.space import LayerShape, SearchSpace

PRESETS = ("paper", "paper-multirank", "linear-probe", "bitfit", "ssf", "lora-RANK")
MULTIRANK = (2, 4, 8)


def preset(name: str, layers: Sequence[LayerShape], ranks: Sequence[int] | None = None) -> SearchSpace:
    """The search space of a name over a backbone's layers.

    `paper` has all 432 configs of a layer at rank 4, `paper-multirank` also ranks 2 and 8; a known method (`lora-8` is LoRA
    of rank 8) is the space whose only subnet is that method.

    Args:
        ranks: instead of those of `paper` or `paper-multirank`.

    Raises:
        ConfigInvalid: no such preset, or ranks for a known method.
    """
    if name in ("paper", "paper-multirank"):
        return SearchSpace.of(layers, ranks or (MULTIRANK if name == "paper-multirank" else (4,)))
    lora = re.fullmatch(r"lora-([1-9][0-9]{0,3})", name)
    if (not lora and name not in METHODS) or name == "lora":
        raise ConfigInvalid(f"preset {name!r} is unknown; accepted: {', '.join(PRESETS)}")
    if ranks:
        raise ConfigInvalid(f"preset {name!r} is a single subnet and takes no ranks")
    full = SearchSpace.of(layers)
    return full.covering(method_config(full, "lora" if lora else name, int(lora[1]) if lora else None))
