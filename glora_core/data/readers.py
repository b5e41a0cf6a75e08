"""How a backbone's examples become tensors: images by its transform, texts by its tokenizer. One interface for both.

A reader also says what of it decides the numbers, so that whoever caches what was computed from them can tell readers apart.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol

from glora_core.backbones import BackboneInfo, BackboneSpec, Transform, language
from glora_core.checks import check_whole
from glora_core.data.decoding import DECODING
from glora_core.data.images import ImageSplit, load_split
from glora_core.data.labelled import AnyData, ImageFolder
from glora_core.data.split import Split
from glora_core.data.tables import TextTable
from glora_core.data.text import TextSplit, classify
from glora_core.errors import BackboneUnsupported, ConfigInvalid


class Reader(Protocol):
    """Makes splits of a data set of its kind.

    `transform` is for images, `tokenizer` for texts; the other is None. `libraries` are those that the numbers depend on besides torch.
    """

    @property
    def transform(self) -> Transform | None:
        """The input transform."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that goes with an export."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names of packages."""

    def load(self, data: AnyData, split: str) -> Split:
        """A split of a data set, or its `train+val`, in memory."""

    def recipe(self) -> dict[str, Any]:
        """All that decides the numbers of a split beside the data, in plain JSON types."""


@dataclass(frozen=True)
class ImageReader:
    """Reads images by a backbone's own transform."""

    transform: Transform
    tokenizer: None = None
    libraries: tuple[str, ...] = ()

    def load(self, data: AnyData, split: str) -> ImageSplit:
        """A split of images. Raises DataInvalid if one can no longer be decoded."""
        assert isinstance(data, ImageFolder)
        return load_split(data, split, self.transform)

    def recipe(self) -> dict[str, Any]:
        """How files are decoded and transformed."""
        return {"decoding": DECODING, "transform": asdict(self.transform)}


@dataclass(frozen=True)
class TextReader:
    """Reads texts by a transformers tokenizer; `tokenizer` cuts them to `max_length` tokens wherever it is loaded again."""

    tokenizer: Any
    max_length: int
    transform: None = None
    libraries: tuple[str, ...] = ("transformers", "tokenizers")

    def load(self, data: AnyData, split: str) -> TextSplit:
        """A split of texts."""
        assert isinstance(data, TextTable)
        rows = data.examples(split)
        return classify([row.text for row in rows], [row.label for row in rows], self.tokenizer, self.max_length)

    def recipe(self) -> dict[str, Any]:
        """Which tokenizer, and to how many tokens."""
        return {"transform": None, "text": {"max_length": self.max_length, "tokenizer": self._hash}}

    @cached_property
    def _hash(self) -> str:
        return language.tokenizer_hash(self.tokenizer)


def reader_of(spec: BackboneSpec, info: BackboneInfo, max_length: int | None = None) -> Reader:
    """The reader that goes with a backbone.

    Args:
        info: of the backbone, as described.
        max_length: tokens that longer texts are cut to; as many as the backbone reads if absent.

    Raises:
        BackboneUnknown: a text backbone has no tokenizer, or does not say how many tokens it reads.
        BackboneUnsupported: it is a language model, which classifies nothing.
        ConfigInvalid: a length is given for images, or is more than the backbone reads, or none.
    """
    if info.transform is not None:
        if max_length is not None:
            raise ConfigInvalid(f"max_length is {max_length}; {spec.name!r} reads images, which have none")
        return ImageReader(info.transform)
    if spec.task != "classification":
        raise BackboneUnsupported(f"backbone {spec.name!r} does not classify texts; accepted is transformers:FOLDER")
    tokenizer = language.tokenizer(spec)
    if max_length is not None:
        check_whole("max_length", max_length, tokenizer.num_special_tokens_to_add() + 1)  # fewer would not be cut at all
    if max_length is None:
        max_length = language.longest(spec, tokenizer, info.max_length)
    elif info.max_length is not None and max_length > info.max_length:
        raise ConfigInvalid(f"max_length is {max_length:,}; {spec.name!r} reads at most {info.max_length:,} tokens")
    tokenizer.model_max_length = max_length
    return TextReader(tokenizer, max_length)
