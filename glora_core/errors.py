"""The errors of glora_core: one small hierarchy, each naming what was wrong, where, and what would be accepted.

Imports nothing, so that every room may catch these without loading torch.
"""


class GloraError(Exception):
    """Base of every error that glora_core raises on purpose."""


class ConfigInvalid(GloraError, ValueError):
    """A choice, layer config, subnet config or setting is outside what its space allows."""


class BudgetInfeasible(GloraError, ValueError):
    """No subnet of the space has so few trainable parameters.

    Attributes:
        budget: the refused upper bound, in parameters.
        minimum, maximum: the achievable range of the space, in parameters.
    """

    def __init__(self, budget: int, minimum: int, maximum: int) -> None:
        self.budget, self.minimum, self.maximum = budget, minimum, maximum
        super().__init__(f"budget of {budget:,} trainable parameters cannot be met: this space reaches from {minimum:,} to {maximum:,}")

    def __reduce__(self) -> tuple[type, tuple[int, int, int]]:
        return type(self), (self.budget, self.minimum, self.maximum)


class DataInvalid(GloraError, ValueError):
    """A data set cannot be used; the message names the folder or file and what would be accepted."""


class BackboneUnknown(GloraError, ValueError):
    """The backbone's name or weights cannot be resolved."""


class BackboneUnsupported(GloraError, ValueError):
    """The backbone exists, but has no layer that can be adapted."""


class Diverged(GloraError, ArithmeticError):
    """Training produced a loss that is not finite."""


class NotLearning(GloraError, ArithmeticError):
    """A supernet is half trained and no better than guessing."""


class ExportMismatch(GloraError, ArithmeticError):
    """A merged model does not compute what its unmerged subnet computes, within the derived bound."""


class AdapterInvalid(GloraError, ValueError):
    """An adapter file cannot be read, or belongs to another backbone."""


class LibraryMissing(GloraError, ImportError):
    """A part of glora_core needs a library that is not installed; the message says which and how to get it."""
