"""Text as tensors: token ids padded to one length, with a class per text or, for a language model, the next token as label.

A batch is as long as its longest text, and what is scored comes in batches of texts alike in length, so that little padding is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from glora_core.errors import DataInvalid


@dataclass(frozen=True)
class TextSplit:
    """One split in memory.

    Attributes:
        input_ids: (n, tokens), int64; attention_mask: the same shape, 1 where there is text.
        labels: (n,) classes, or (n, tokens) next tokens with -100 where none is asked for; int64.
        max_length: tokens that longer texts were cut to; None where that is not known.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    max_length: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def _ends(self) -> Tensor:
        """(n,), where the last token of each text ends; padding before a text stays, since positions count from there."""
        places = torch.arange(1, self.attention_mask.shape[1] + 1, device=self.attention_mask.device)
        return (self.attention_mask * places).amax(1)

    def take(self, indices: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The inputs of a transformers model, and the labels, of the given rows, as far as the longest of them goes."""
        end = max(1, int(self._ends[indices].max())) if len(indices) else 1
        labels = self.labels[indices]
        inputs = {name: tokens[indices, :end] for name, tokens in (("input_ids", self.input_ids), ("attention_mask", self.attention_mask))}
        return inputs, labels if labels.dim() == 1 else labels[:, :end]

    def batches(self, size: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """All examples, `size` at a time, the shortest first."""
        for rows in torch.split(torch.argsort(self._ends, stable=True), size):
            yield self.take(rows)

    def part(self, indices: Tensor) -> "TextSplit":
        """The given rows as a split of their own."""
        return replace(self, input_ids=self.input_ids[indices], attention_mask=self.attention_mask[indices], labels=self.labels[indices])

    def to(self, device: torch.device) -> "TextSplit":
        """The same split with its tensors on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("input_ids", "attention_mask", "labels")}
        return replace(self, **moved)


def classify(texts: Sequence[str], labels: Sequence[int], tokenizer: Any, max_length: int = 128) -> TextSplit:
    """Texts with a class each, by a transformers tokenizer; longer texts are cut to `max_length` tokens.

    Raises:
        DataInvalid: no texts, or another number of labels.
    """
    if not texts or len(texts) != len(labels):
        raise DataInvalid(f"{len(texts)} texts and {len(labels)} labels: accepted is at least one text, and a label for each")
    ids, mask = _encode(texts, tokenizer, max_length)
    return TextSplit(ids, mask, torch.tensor(labels, dtype=torch.int64), max_length)


def continue_text(texts: Sequence[str], tokenizer: Any, max_length: int = 128) -> TextSplit:
    """Texts for a causal language model: the label of every token is the one after it.

    Raises:
        DataInvalid: no text has two tokens.
    """
    ids, mask = _encode(texts, tokenizer, max_length) if texts else (torch.zeros(0, 1, dtype=torch.int64),) * 2
    labels = torch.full_like(ids, -100)
    labels[:, :-1] = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    if not bool((labels >= 0).any()):
        raise DataInvalid("no text has two tokens: accepted is at least one text with a next token to guess")
    return TextSplit(ids, mask, labels, max_length)


def _encode(texts: Sequence[str], tokenizer: Any, max_length: int) -> tuple[Tensor, Tensor]:
    found = tokenizer(list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    return found["input_ids"], found["attention_mask"]
