"""What a job asks for: the typed request that the API checks, the store keeps and the runner obeys.

Pydantic at the edge; `space_of` and `SearchRequest.settings` turn it into glora_core's own.
Imports neither torch nor ray.
"""

import re
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any, Literal
from unicodedata import category

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from glora_core.data.rows import Columns
from glora_core.effort import DEFAULT, EffortName
from glora_core.errors import ConfigInvalid
from glora_core.finals.plan import FinalsSettings
from glora_core.names import transformers_name
from glora_core.presets import preset
from glora_core.space import LayerShape, Override, SearchSpace
from services.job_effort import with_effort
from services.job_resources import ResourcesRequest
from services.job_settings import FinalsRequest, SearchRequest, Strict, TrainingRequest

_SUFFIX = {"": 1, "k": 1_000, "m": 1_000_000}


def parse_budget(value: Any) -> Any:
    """A number of parameters written as 100000, "100k" or "1.5M"; anything else is left for pydantic to refuse."""
    if isinstance(value, bool):
        raise ValueError("true and false are not numbers of parameters; write it like 100000, 100k or 1.5M")
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([kKmM]?)\s*", value)
        if not match:
            raise ValueError(f"{value[:40]!r} is not a number of parameters; write it like 100000, 100k or 1.5M")
        return round(Decimal(match[1]) * _SUFFIX[match[2].lower()])
    return value


Budget = Annotated[
    int,
    Field(ge=0, le=10**18),
    BeforeValidator(parse_budget),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 10**18}, {"type": "string", "pattern": r"^[0-9.]+\s*[kKmM]?$"}]}
    ),
]


_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Overrides of the direction of writing, with which a text can look like another."""


def _printable(text: str) -> str:
    if any(category(character) in ("Cc", "Zl", "Zp") or character in _BIDI for character in text):
        raise ValueError("control characters are not accepted")
    return text


Line = Annotated[str, AfterValidator(_printable)]
"""Text without control characters, which neither a database nor a terminal should be given."""

Pattern = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
"""Glob pattern over names of layers."""
TestPath = Annotated[str, Field(max_length=4096), AfterValidator(_printable)]
"""Where a further test set is."""


def _not_a_split(name: str) -> str:
    if name in ("train", "val", "test"):
        raise ValueError(f"{name!r} is the name of one of the data's own splits; give the test set another")
    return name


TestName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"), AfterValidator(_not_a_split)]
"""Name of a further test set: letters, digits, dots, dashes and underscores."""


class BackboneRequest(Strict):
    """Which pretrained backbone."""

    name: Line = Field(
        min_length=1,
        max_length=300,
        description="Any name that `timm.create_model` takes: a timm model, `hf-hub:owner/name`, or `local-dir:/folder`; or, for texts, "
        "`transformers:` and a folder or a name on the model hub.",
        examples=["vit_tiny_patch16_224.augreg_in21k"],
    )
    weights: Line | None = Field(
        None,
        max_length=4096,
        description="Local weights file, readable by the service, instead of the name's own weights.",
        examples=[None],
    )
    image_size: int | None = Field(
        None, ge=4, le=2048, description="Side of the square input, in pixels; the backbone's own if absent.", examples=[None]
    )
    layers: list[Pattern] = Field(
        [],
        max_length=50,
        description="Glob patterns over module names of the layers to adapt; all but stem and head if empty.",
        examples=[["blocks.*.attn.*"]],
    )


ColumnName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class ColumnsRequest(Strict):
    """What the columns of a table of texts are called."""

    text: ColumnName = Field(Columns().text, description="The text.")
    label: ColumnName = Field(Columns().label, description="Its class, by name or by number.")
    split: ColumnName = Field(
        Columns().split, description="`train`, `val` (or `validation`) or `test`; not needed where each split has a file of its own."
    )

    @model_validator(mode="after")
    def _differ(self) -> "ColumnsRequest":
        if len({self.text, self.label, self.split}) < 3:
            raise ValueError("two columns have the same name; accepted are three that differ")
        return self

    def columns(self) -> Columns:
        """The columns for glora_core."""
        return Columns(self.text, self.label, self.split)


class DataRequest(Strict):
    """Which labelled images or texts."""

    path: Line = Field(
        min_length=1,
        max_length=4096,
        description="What the service can read. Images: a folder of `train/`, `val/` and optionally `test/` with class folders, or VTAB-1K "
        "list files. Texts, for a `transformers:` backbone: a `.csv` or `.jsonl` file with a column for the split, or a folder with such a "
        "file named `data`, or one for each split. Either: a folder that Hugging Face `datasets` saved.",
        examples=["/data/flowers"],
    )
    shots: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Few-shot: so many training examples of each class, drawn by the job's seed; a class that has fewer keeps them all. "
        "All examples if absent.",
        examples=[16],
    )
    columns: ColumnsRequest = Field(ColumnsRequest(), description="Texts: what the columns of the table are called.")
    max_length: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Texts: tokens that longer ones are cut to; as many as the backbone reads if absent.",
        examples=[None],
    )
    also_test: dict[TestName, TestPath] = Field(
        {},
        max_length=20,
        description="Further test sets, for domain shift: a folder with one folder of images per class by name; of texts, a table, or a "
        "folder with one named `test`. Classes are the data's or some of them, among which it is then scored. Scored once, for the "
        "exported model and baselines.",
        examples=[{"sketch": "/data/flowers-sketch"}],
    )


Ranks = Annotated[list[Annotated[int, Field(ge=1, le=256)]], Field(min_length=1, max_length=8)]
Code = Annotated[str, Field(pattern=r"^(lora|vector|scalar|none|L[1-9][0-9]{0,2}|V|S|N)$")]
Choices = dict[Literal["A", "B", "C", "D", "E"], Annotated[list[Code], Field(max_length=20)]]


class OverrideRequest(Strict):
    """What differs in some layers; of several overrides that match a layer, the last one that names a thing counts."""

    layers: Line = Field(min_length=1, max_length=200, description="Glob pattern over layer names.", examples=["blocks.0.*"])
    ranks: Ranks | None = Field(None, description="Ranks of low-rank choices there.")
    choices: Choices = Field({}, description="Allowed choices there, of the tensors named.", examples=[{"A": ["none"]}])


class SpaceRequest(Strict):
    """What may be chosen in each adapted layer."""

    preset: Line = Field(
        "glora",
        pattern=r"^(glora|paper|paper-multirank|linear-probe|bitfit|ssf|lora-[1-9][0-9]{0,2})$",
        description="`glora`: every choice of a layer at ranks 1, 2 and 4; `paper`: all 432 at rank 4; `paper-multirank`: at ranks 2, 4 "
        "and 8; `linear-probe`, `bitfit`, `ssf`, `lora-RANK`: that method alone.",
    )
    ranks: Ranks | None = Field(None, description="Ranks of low-rank choices; the preset's if absent.")
    choices: Choices = Field(
        {},
        description="Allowed choices per support tensor: kinds, or codes of single choices such as `L8`; a tensor that is not named may "
        "take all of its choices.",
        examples=[{"A": ["vector", "none"]}],
    )
    overrides: list[OverrideRequest] = Field([], max_length=100, description="What differs in some layers.")


class JobRequest(Strict):
    """One job: adapt a backbone to a data set within a parameter budget."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "flowers",
                    "backbone": {"name": "vit_tiny_patch16_224.augreg_in21k"},
                    "data": {"path": "/data/flowers"},
                    "budget": "100k",
                    "effort": "standard",
                    "seed": 0,
                }
            ]
        }
    )

    name: Line = Field("", max_length=120, description="Name for humans; the data folder's name if empty.")
    backbone: BackboneRequest
    data: DataRequest
    budget: Budget = Field(
        description="Upper bound on trainable parameters, head not counted; a number, or text such as `100k` or `1.5M`.", examples=["100k"]
    )
    effort: EffortName = Field(
        DEFAULT,
        description="How much to spend where `training.epochs`, `search.population`, `search.generations` and the numbers of `finals` "
        "do not say it themselves.",
    )
    space: SpaceRequest = SpaceRequest()
    training: TrainingRequest = TrainingRequest()
    search: SearchRequest = SearchRequest()
    finals: FinalsRequest = FinalsRequest()
    resources: ResourcesRequest = ResourcesRequest()
    baselines: bool | Literal["trained"] = Field(
        False,
        description="Also report linear probe, BitFit and LoRA within the budget: `true`, those that are in the space as subnets of the "
        "job's supernet; `trained`, also trained alone from scratch at each of the finals' learning rates, the best of them.",
    )
    train_on_val: bool = Field(
        False,
        description="Once subnet, learning rate and length are chosen on val, train what won once more on train and val together, and "
        "export that (VTAB's own protocol). Needs finals.",
    )
    priority: int = Field(
        0,
        ge=-100,
        le=100,
        description="Of higher priority, started sooner; among equals the user with the least running comes first.",
    )
    max_hours: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="Hours that the job may run, over all attempts and without the time in the queue; then it fails as `time_exceeded`. "
        "Any number if absent.",
        examples=[None],
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Of everything random in the job.")

    @model_validator(mode="before")
    @classmethod
    def _spending(cls, given: Any) -> Any:
        return with_effort(_unchanged_texts(given)) if isinstance(given, dict) else given

    @property
    def reads_texts(self) -> bool:
        """Whether its backbone reads texts; else it reads images."""
        return transformers_name(self.backbone.name) is not None

    @property
    def played_finals(self) -> FinalsSettings:
        """How its finals are played: as they are asked for, and what training baselines, or training once more on val, makes of that."""
        asked = self.finals.settings(self.training)
        if self.train_on_val:  # what was not trained alone cannot be trained again
            asked = replace(asked, standing=0)
        if self.baselines == "trained":  # all of them to the end, or the reported ones would not be at their best
            asked = replace(asked, scratch_epochs=(sum(asked.scratch_epochs) or self.training.epochs,))
        return asked

    @model_validator(mode="after")
    def _resources_fit(self) -> "JobRequest":
        self.resources.check(self.training.use_gpu, self.training.workers)
        return self


def _unchanged_texts(given: dict[str, Any]) -> dict[str, Any]:
    """A request as it is sent, where it says nothing of `training.augment` and its backbone reads texts with none."""
    backbone, training = given.get("backbone"), given.get("training", {})
    name = backbone.get("name") if isinstance(backbone, dict) else getattr(backbone, "name", None)
    if not isinstance(name, str) or transformers_name(name) is None or not isinstance(training, dict) or "augment" in training:
        return given
    return {**given, "training": {**training, "augment": []}}


def space_of(request: JobRequest, layers: tuple[LayerShape, ...]) -> SearchSpace:
    """The search space over a backbone's layers.

    Raises:
        ConfigInvalid: a tensor cannot take a choice, a pattern matches no layer, or ranks or choices are given for a single method.
    """
    asked = request.space
    start = preset(asked.preset, layers, asked.ranks)
    if asked.choices and start.size == 1:
        raise ConfigInvalid(f"space.choices: preset {asked.preset!r} is a single subnet and takes no choices; `glora` does")
    overrides = [Override.of(o.layers, o.ranks, {str(t): names for t, names in o.choices.items()}) for o in asked.overrides]
    chosen = SearchSpace.of(layers, start.ranks, {str(t): names for t, names in asked.choices.items()})
    return replace(start, kinds=chosen.kinds, overrides=(*start.overrides, *overrides))
