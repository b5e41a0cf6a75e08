"""What a job asks for: the typed request that the API checks, the store keeps and the runner obeys.

Pydantic at the edge; `space_of` and `SearchRequest.settings` turn it into glora_core's own.
Imports neither torch nor ray.
"""

import re
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from glora_core.errors import ConfigInvalid
from glora_core.finals import FinalsSettings
from glora_core.metrics import ACCURACY, METRIC_NAMES, check_metric
from glora_core.presets import preset
from glora_core.search import SearchSettings
from glora_core.space import LayerShape, Override, SearchSpace

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


def _printable(text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("control characters are not accepted")
    return text


Line = Annotated[str, AfterValidator(_printable)]
"""Text without control characters, which neither a database nor a terminal should be given."""


def _not_a_split(name: str) -> str:
    if name in ("train", "val", "test"):
        raise ValueError(f"{name!r} is the name of one of the data's own splits; give the test set another")
    return name


TestName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"), AfterValidator(_not_a_split)]
"""Name of a further test set: letters, digits, dots, dashes and underscores."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneRequest(_Strict):
    """Which pretrained backbone."""

    name: Line = Field(
        min_length=1,
        max_length=300,
        description="Any name that `timm.create_model` takes: a timm model, `hf-hub:owner/name`, or `local-dir:/folder`.",
        examples=["vit_tiny_patch16_224.augreg_in21k"],
    )
    weights: Line | None = Field(
        None, description="Local weights file, readable by the service, instead of the name's own weights.", examples=[None]
    )
    image_size: int | None = Field(
        None, ge=4, le=2048, description="Side of the square input, in pixels; the backbone's own if absent.", examples=[None]
    )
    layers: list[Line] = Field(
        [],
        max_length=50,
        description="Glob patterns over module names of the layers to adapt; all but stem and head if empty.",
        examples=[["blocks.*.attn.*"]],
    )


class DataRequest(_Strict):
    """Which labelled images."""

    path: Line = Field(
        min_length=1,
        description="Folder that the service can read: `train/`, `val/` and optionally `test/` with class folders, or VTAB-1K list files.",
        examples=["/data/flowers"],
    )
    shots: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Few-shot: so many training images of each class, drawn by the job's seed; a class that has fewer keeps them all. "
        "All images if absent.",
        examples=[16],
    )
    also_test: dict[TestName, Line] = Field(
        {},
        max_length=20,
        description="Further test sets, for domain shift: a folder with one folder of images per class by name. Classes are the data's or "
        "some of them, among which it is then scored. Scored once, for the exported model and baselines.",
        examples=[{"sketch": "/data/flowers-sketch"}],
    )


Ranks = Annotated[list[Annotated[int, Field(ge=1, le=256)]], Field(min_length=1, max_length=8)]
Choices = dict[Literal["A", "B", "C", "D", "E"], list[Annotated[str, Field(pattern=r"^(lora|vector|scalar|none|L[1-9][0-9]{0,2}|V|S|N)$")]]]


class OverrideRequest(_Strict):
    """What differs in some layers; of several overrides that match a layer, the last one that names a thing counts."""

    layers: Line = Field(min_length=1, max_length=200, description="Glob pattern over layer names.", examples=["blocks.0.*"])
    ranks: Ranks | None = Field(None, description="Ranks of low-rank choices there.")
    choices: Choices = Field({}, description="Allowed choices there, of the tensors named.", examples=[{"A": ["none"]}])


class SpaceRequest(_Strict):
    """What may be chosen in each adapted layer."""

    preset: Line = Field(
        "paper",
        pattern=r"^(paper|paper-multirank|linear-probe|bitfit|ssf|lora-[1-9][0-9]{0,2})$",
        description="`paper`: all 432 choices of a layer at rank 4; `paper-multirank`: at ranks 2, 4 and 8; `linear-probe`, `bitfit`, "
        "`ssf`, `lora-RANK`: that method alone.",
    )
    ranks: Ranks | None = Field(None, description="Ranks of low-rank choices; the preset's if absent.")
    choices: Choices = Field(
        {},
        description="Allowed choices per support tensor: kinds, or codes of single choices such as `L8`; a tensor that is not named may "
        "take all of its choices.",
        examples=[{"A": ["vector", "none"]}],
    )
    overrides: list[OverrideRequest] = Field([], max_length=100, description="What differs in some layers.")


class TrainingRequest(_Strict):
    """How the supernet is trained."""

    epochs: int = Field(60, ge=1, le=10_000, description="Passes over the training split.")
    batch_size: int = Field(50, ge=1, le=4096, description="Images of a step, over all workers together.")
    learning_rate: float = Field(3e-3, gt=0, le=10, description="Peak learning rate of AdamW; cosine schedule with linear warm-up.")
    weight_decay: float = Field(1e-4, ge=0, le=10, description="Decoupled weight decay.")
    clip_norm: float | None = Field(
        None, gt=0, le=1e6, description="Largest norm of a step's gradient, over the numbers that its subnets use; unbounded if absent."
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps spent warming up.")
    augment: list[Literal["crop", "flip", "colour"]] = Field(
        ["crop"],
        max_length=3,
        description="Random changes of training images: `crop` (a random part, of half the area at least), `flip` (mirrored), `colour`. "
        "Leave `crop` out where position or size is the answer.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of every label spread over all classes.")
    ema: float = Field(0.0, ge=0, lt=1, description="Decay, by step, of the running average that is kept in the end; 0: none.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of forward and backward passes in training; `bfloat16` is automatic mixed precision."
    )
    tensor_rates: dict[Literal["A", "B", "C", "D", "E", "head"], Annotated[float, Field(ge=0, le=1000)]] = Field(
        {}, description="Factors on the learning rate of single support tensors and of the head.", examples=[{"E": 3.0}]
    )
    policy: Literal["random", "sandwich", "full-sandwich"] = Field(
        "sandwich",
        description="`random`: random subnets (the paper). `sandwich`: the largest on the labels, random ones distilled from it. "
        "`full-sandwich`: also the smallest.",
    )
    subnets: int = Field(1, ge=1, le=64, description="Random subnets of a step.")
    sampling: Literal["uniform", "fair", "progressive", "budget"] = Field(
        "uniform",
        description="How a step's random subnets are drawn: `uniform` over the space; `fair`, every choice equally often; `progressive`, "
        "from the largest towards uniform; `budget`, uniform over the subnets within the job's budget.",
    )
    entanglement: Literal["normalised", "paper"] = Field("normalised", description="How the choices of one tensor share numbers.")
    workers: int = Field(1, ge=1, le=64, description="Ray Train workers.")
    use_gpu: bool = Field(False, description="Train and evaluate on GPUs, one per worker and evaluator.")


class SearchRequest(_Strict):
    """How configurations are searched."""

    strategy: Literal["evolution", "random", "nsga2", "regularized-evolution", "surrogate"] = Field(
        "surrogate",
        description="`surrogate`: a regression on what is known picks what to evaluate next; `evolution`: the paper's; `random`; `nsga2`: "
        "fitness against parameters; `regularized-evolution`: the oldest make way.",
    )
    metric: Annotated[str, AfterValidator(check_metric)] = Field(
        ACCURACY,
        json_schema_extra={"enum": list(METRIC_NAMES)},
        description="What the fitness on val is: `accuracy`, `macro-accuracy` (mean recall of the classes), or one of torchmetrics' "
        "multiclass metrics, averaged over classes alike; of one of which less is better, the fitness is minus its value.",
    )
    population: int = Field(50, ge=1, le=10_000, description="Candidates per generation.")
    generations: int = Field(20, ge=1, le=10_000, description="Generations.")
    parents: int = Field(10, ge=1, le=10_000, description="Best subnets so far that may have children.")
    crossover: int | None = Field(None, ge=0, description="Children by crossover per generation; half the population if absent.")
    mutation: int | None = Field(
        None, ge=0, description="Children by mutation per generation; half the population if absent. The rest is random."
    )
    mutation_probability: float = Field(0.2, ge=0, le=1, description="Chance of each layer to be redrawn in a mutation.")
    seed_known_methods: bool = Field(True, description="Put the known methods that fit the budget into the first generation.")
    tournament: int = Field(SearchSettings().tournament, ge=1, le=10_000, description="Drawn for each parent; `regularized-evolution`.")
    alive: int = Field(SearchSettings().alive, ge=1, le=100_000, description="Youngest subnets that may be drawn; `regularized-evolution`.")
    pool: int = Field(SearchSettings().pool, ge=1, le=100_000, description="Candidates predicted per generation; `surrogate`.")
    evaluators: int = Field(0, ge=0, le=1024, description="Ray actors that evaluate candidates; 0: one per CPU (or GPU) of the cluster.")

    @model_validator(mode="after")
    def _fits(self) -> "SearchRequest":
        self.settings()
        return self

    def settings(self) -> SearchSettings:
        """The search's settings for glora_core."""
        return SearchSettings(**self.model_dump(exclude={"evaluators"}))


Epochs = Annotated[int, Field(ge=1, le=10_000)]
Rate = Annotated[float, Field(gt=0, le=10)]


class FinalsRequest(_Strict):
    """The last round: the best few candidates, and the known methods within the budget, each trained alone and compared on val."""

    mode: Literal["off", "winner", "thorough"] = Field(
        "thorough",
        description="`off`: the search's best is exported as it is in the supernet. `winner`: one candidate is trained on alone. "
        "`thorough`: the best distinct candidates are, and the known methods within the budget are trained from scratch; the best on val "
        "is exported.",
    )
    candidates: int = Field(3, ge=1, le=50, description="Best distinct candidates of `thorough`.")
    learning_rates: Annotated[list[Rate], Field(min_length=1, max_length=8)] | None = Field(
        None,
        description="Peak learning rates that each of them is tried at; that of the supernet and a third of it if absent.",
        examples=[[0.003, 0.001]],
    )
    epochs: Annotated[list[Epochs], Field(min_length=1, max_length=8)] | None = Field(
        None,
        description="Epochs of each rung, after which the better half goes on; a quarter and a half of those of the supernet if absent.",
        examples=[[15, 30]],
    )
    scratch_epochs: int | None = Field(
        None,
        ge=0,
        le=10_000,
        description="Epochs of known methods trained from scratch, in one go; those of the supernet if absent; 0: none are.",
    )

    @model_validator(mode="after")
    def _fits(self) -> "FinalsRequest":
        self.settings(TrainingRequest())
        return self

    def settings(self, training: TrainingRequest) -> FinalsSettings:
        """The finals' settings for glora_core; what is absent follows from the supernet's training."""
        rate, epochs = training.learning_rate, training.epochs
        return FinalsSettings(
            self.mode,
            self.candidates,
            tuple(self.learning_rates or (rate, float(f"{rate / 3:.2g}"))),
            tuple(self.epochs or (max(1, epochs // 4), max(1, epochs // 2))),
            epochs if self.scratch_epochs is None else self.scratch_epochs,
        )


class JobRequest(_Strict):
    """One job: adapt a backbone to a data set within a parameter budget."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "flowers",
                    "backbone": {"name": "vit_tiny_patch16_224.augreg_in21k"},
                    "data": {"path": "/data/flowers"},
                    "budget": "100k",
                    "search": {"population": 50, "generations": 20},
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
    space: SpaceRequest = SpaceRequest()
    training: TrainingRequest = TrainingRequest()
    search: SearchRequest = SearchRequest()
    finals: FinalsRequest = FinalsRequest()
    baselines: bool = Field(
        False,
        description="Also train linear probe, BitFit and LoRA from scratch within the budget, at each of the finals' learning rates, "
        "and report the best.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Of everything random in the job.")


def space_of(request: JobRequest, layers: tuple[LayerShape, ...]) -> SearchSpace:
    """The search space over a backbone's layers.

    Raises:
        ConfigInvalid: a tensor cannot take a choice, a pattern matches no layer, or ranks or choices are given for a single method.
    """
    asked = request.space
    start = preset(asked.preset, layers, asked.ranks)
    if asked.choices and start.size == 1:
        raise ConfigInvalid(f"space.choices: preset {asked.preset!r} is a single subnet and takes no choices; `paper` does")
    overrides = [Override.of(o.layers, o.ranks, {str(t): names for t, names in o.choices.items()}) for o in asked.overrides]
    chosen = SearchSpace.of(layers, start.ranks, {str(t): names for t, names in asked.choices.items()})
    return replace(start, kinds=chosen.kinds, overrides=(*start.overrides, *overrides))
