"""How many training images `affine` turns: the more, the longer a network has known what it is shown.

Changed images keep a network that trains for long on few examples from learning these by heart, and hold back one that has yet to
learn them; so their share follows the training loss, as in adaptive augmentation (Karras et al., arXiv 2006.06676). Imports torch.
"""

from torch import Tensor

from glora_core.training.probe import loss_of_guessing

KNOWN = 0.3
"""A network knows its examples where its loss has come so near to the least possible, as a share of the way from guessing."""
STEP = 0.05
"""Of the images, that more are turned or fewer after each epoch."""


class Turning:
    """The share of images to turn, 0–1: none at first.

    Args:
        labels: of the training split; negative ones ask for no answer.
        smoothing: share of every label that the loss spreads over all classes.
        classes: how many outputs the network has.
    """

    def __init__(self, labels: Tensor, smoothing: float, classes: int) -> None:
        self.share = 0.0
        least = loss_of_guessing(labels.new_zeros(1), smoothing, classes)  # of who is sure of one class, as the label says
        self._known = least + KNOWN * (loss_of_guessing(labels, smoothing, classes) - least)

    def note(self, loss: float) -> None:
        """Take in an epoch's mean loss on the training split, in nats."""
        self.share = min(1.0, max(0.0, round(self.share + (STEP if loss < self._known else -STEP), 9)))
