"""How a job trains, searches and plays its finals: the parts of a request that a laptop and a cluster set alike.

Imports neither torch nor ray.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from glora_core.augmentations import Augmentation
from glora_core.effort import AUGMENT, DEFAULT, EFFORTS, LABEL_SMOOTHING
from glora_core.finals import FinalsSettings
from glora_core.metrics import ACCURACY, METRIC_NAMES, check_metric
from glora_core.search import SearchSettings

_EFFORT = EFFORTS[DEFAULT]


class Strict(BaseModel):
    """A part of a request: a field that it does not know is refused, and nothing is changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingRequest(Strict):
    """How the supernet is trained."""

    epochs: int = Field(_EFFORT.epochs, ge=1, le=10_000, description="Passes over the training split; the effort's if absent.")
    batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Examples of a step, over all workers together; if absent an eighth of the training split, 8 at least and 50 at most.",
    )
    learning_rate: float = Field(
        _EFFORT.learning_rate, gt=0, le=10, description="Peak learning rate of AdamW; cosine schedule with linear warm-up."
    )
    weight_decay: float = Field(1e-4, ge=0, le=10, description="Decoupled weight decay.")
    clip_norm: float | None = Field(
        None, gt=0, le=1e6, description="Largest norm of a step's gradient, over the numbers that its subnets use; unbounded if absent."
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps spent warming up.")
    warmup_epochs: int | None = Field(None, ge=0, le=10_000, description="Epochs spent warming up, instead of a share.")
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Stochastic depth in training: how often the residual branches of the last block are left out, for each example on its "
        "own; of the blocks before it less often, down to never for the first.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Early stop: epochs without a lower mean loss of the probed subnets on val after which training ends; what was best by "
        "that loss is kept. Trained to the last epoch if absent.",
    )
    augment: list[Augmentation] = Field(
        list(AUGMENT),
        max_length=4,
        description="Random changes of training images: `crop` (a random part, of half the area at least), `affine` (turned by up to 15 "
        "degrees, and slanted: the more images, the longer the network has known them), `flip` (mirrored), `colour`. Leave `crop` out "
        "where position or size is the answer, `affine` where direction is. "
        "Texts are never changed: none, for a backbone that reads those.",
    )
    label_smoothing: float = Field(LABEL_SMOOTHING, ge=0, lt=1, description="Share of every label spread over all classes.")
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
    sampling_budget: int | None = Field(
        None, ge=0, le=10**18, description="Budget that `sampling: budget` draws within; the job's if absent. A fork keeps its parent's."
    )
    entanglement: Literal["normalised", "paper"] = Field("normalised", description="How the choices of one tensor share numbers.")
    workers: int = Field(1, ge=1, le=64, description="Ray Train workers.")
    use_gpu: bool = Field(False, description="Train and evaluate on GPUs, one per worker and evaluator.")

    @model_validator(mode="after")
    def _fits(self) -> "TrainingRequest":
        if self.warmup_epochs is not None and self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; accepted are at most the {self.epochs} epochs of the training")
        return self


class SearchRequest(Strict):
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
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Of the forward passes that candidates are evaluated by; `bfloat16` is automatic mixed precision, and an evaluation of "
        "its own. Finals, baselines and tests are measured in float32.",
    )
    population: int = Field(_EFFORT.population, ge=1, le=10_000, description="Candidates per generation; the effort's if absent.")
    generations: int = Field(_EFFORT.generations, ge=1, le=10_000, description="Generations; the effort's if absent.")
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
    second: Annotated[str, Field(max_length=40)] | None = Field(
        None,
        description="Of `nsga2`: name of one of `data.also_test`. Accuracy on one half of it becomes another objective beside fitness and "
        "parameters; what is reported of that set is measured on the other half.",
        examples=[None],
    )
    seed: int | None = Field(None, ge=0, lt=2**63, description="Of the search's draws; the job's if absent. A fork may have another.")
    evaluators: int = Field(0, ge=0, le=1024, description="Ray actors that evaluate candidates; 0: one per CPU (or GPU) of the cluster.")

    @model_validator(mode="after")
    def _fits(self) -> "SearchRequest":
        self.settings()
        return self

    def settings(self) -> SearchSettings:
        """The search's settings for glora_core."""
        return SearchSettings(**self.model_dump(exclude={"evaluators", "seed", "second"}))


Epochs = Annotated[int, Field(ge=1, le=10_000)]


def _as_rungs(value: Any) -> Any:
    """One number is one rung, and 0 none at all."""
    return ([value] if value else []) if type(value) is int else value


ScratchEpochs = Annotated[
    list[Epochs],
    Field(max_length=8),
    BeforeValidator(_as_rungs),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "array", "items": {"type": "integer", "minimum": 1}}]}),
]
Rate = Annotated[float, Field(gt=0, le=10)]


class FinalsRequest(Strict):
    """The last round: the best few candidates, and the known methods within the budget, each trained alone and compared on val."""

    mode: Literal["off", "winner", "thorough"] = Field(
        "thorough",
        description="`off`: the search's best is exported as it is in the supernet. `winner`: one candidate is trained on alone. "
        "`thorough`: the best distinct candidates and LoRA are, and the known methods within the budget are trained from scratch; the best "
        "on val is exported.",
    )
    candidates: int = Field(
        _EFFORT.candidates,
        ge=1,
        le=50,
        description="Candidates of `thorough`: the best distinct ones, and in the place of the last of several LoRA, where space and "
        "budget have it; as many as the effort says if absent.",
    )
    learning_rates: Annotated[list[Rate], Field(min_length=1, max_length=8)] | None = Field(
        None,
        description="Peak learning rates that each of them is tried at; if absent the effort's, in proportion to the supernet's rate.",
        examples=[[0.003, 0.001]],
    )
    epochs: Annotated[list[Epochs], Field(min_length=1, max_length=8)] | None = Field(
        None,
        description="Epochs of each rung, after which the better half goes on; if absent the effort's, fewer where the supernet has fewer.",
        examples=[[15, 30]],
    )
    scratch_epochs: ScratchEpochs | None = Field(
        None,
        description="The same of known methods trained from scratch, which are halved among themselves; one number is one rung, 0 or an "
        "empty list: none are. If absent the effort's, fewer where the supernet has fewer.",
        examples=[[5, 15, 30]],
    )
    teachers: int = Field(
        _EFFORT.teachers,
        ge=0,
        le=50,
        description="Best distinct candidates whose average, as they stand in the supernet, gives what is trained on from it half of what "
        "it learns, in all rungs but the last of several; 0: the labels are all.",
    )
    standing: int = Field(
        _EFFORT.standing,
        ge=0,
        le=50,
        description="Best distinct candidates that are compared with the others, and offered to the soup, as they stand in the supernet; 0 "
        "with `train_on_val`, since they cannot be trained again.",
    )
    cycles: int = Field(
        _EFFORT.cycles,
        ge=1,
        le=100,
        description="Stretches of the last of several rungs, of what is trained on from the supernet, each with a warm-up and a cosine of "
        "its own; what they end with is averaged. 1: it is one stretch.",
    )
    afresh: bool = Field(
        True,
        description="Whether the last of several rungs trains from scratch what the others have chosen, for a supernet's head start is "
        "none where training is long. `false`: it goes on from where it is.",
    )
    soup: bool = Field(
        True,
        description="Export the average of several finalists' weights where it is better on val than the best of them, and its loss no "
        "higher. Each of them keeps the budget by itself; the result tells their sum. `false`: the best alone is exported.",
    )

    @model_validator(mode="after")
    def _fits(self) -> "FinalsRequest":
        self.settings(TrainingRequest())
        return self

    def settings(self, training: TrainingRequest) -> FinalsSettings:
        """The finals' settings for glora_core; what is absent is as `Effort.of` of the default effort has it."""
        usual = _EFFORT.of(training.epochs, training.learning_rate)
        return FinalsSettings(
            self.mode,
            self.candidates,
            tuple(self.learning_rates or usual.learning_rates),
            tuple(self.epochs or usual.finals),
            usual.scratch_epochs if self.scratch_epochs is None else tuple(self.scratch_epochs),
            self.teachers,
            self.standing,
            self.cycles,
            self.afresh,
        )
