"""One run of the quality table, done: every method goes through the library's own `Trainer`, with the same data and settings.

A rival is put in a supernet's place as a network with one subnet, so that schedule, order of examples, augmentation, precision
and optimiser are not merely alike but the same code.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from glora_core.backbones import classifier
from glora_core.backbones import run as forward
from glora_core.calibration import unpadded
from glora_core.configs import SubnetConfig, decode, encode
from glora_core.data.split import Split
from glora_core.errors import Diverged
from glora_core.evaluation import score
from glora_core.export.peft.layout import exactly
from glora_core.layers import GLoRALayer
from glora_core.methods import method_config
from glora_core.space import LayerShape, SearchSpace
from glora_core.supernet import Supernet
from glora_core.training import Trainer, TrainingSettings

from .methods import METHODS, feedforward
from .runs import COMMON, Record, Run
from .searched import VAL_BATCH, Found, effort_of, search_and_finish
from .sources import Data
from .tasks import Task, fresh_model

ATTENTION = SDPBackend.MATH
"""Plain attention: 15 ms instead of 21 for a training example of the ViT-S in bfloat16 on a CPU, whose fused backward pass is slow."""
EVA_BATCH = 32
"""Training examples that EVA sees at once."""
HEAD_STD = 0.02
"""Of a head's first weights, as in a supernet."""


class Alone(Supernet):
    """A network that somebody else made trainable, in the place of a supernet: it has one subnet, and what requires a gradient trains.

    Args:
        backbone: the network; its head is drawn anew and made trainable.
        layers: that adapt.
        seed: of the head's first weights.
    """

    def __init__(self, backbone: nn.Module, layers: Sequence[LayerShape], seed: int) -> None:
        nn.Module.__init__(self)
        space = SearchSpace.of(layers)
        self.space, self.backbone, self.entanglement = space.covering(space.extreme(largest=False)), backbone, "normalised"
        generator = torch.Generator().manual_seed(seed)
        for parameter in head_parameters(backbone):
            parameter.requires_grad_(True)
            nn.init.normal_(parameter, std=HEAD_STD if parameter.dim() > 1 else 0.0, generator=generator)

    def layers(self) -> Iterator[tuple[LayerShape, GLoRALayer]]:
        """None of ours."""
        return iter(())

    def set_config(self, config: SubnetConfig) -> None:
        """Nothing to switch."""


def perform(run: Run) -> Record:
    """Train, and score `val` and `test`. A training that diverges makes a record of its own."""
    start, data = time.monotonic(), run.task.source.load(run.task.spec, run.seed)
    torch.manual_seed(run.seed)
    train = _searched if METHODS[run.method].kind == "searched" else _trained
    try:
        with sdpa_kernel(ATTENTION):
            found = train(run, data)
    except Diverged as error:
        return Record(0.0, float("1e9"), 0.0, 0, run.epochs * len(data.train), 0, time.monotonic() - start, f"diverged: {error}")
    val, test = (score(found.model.eval(), split, VAL_BATCH) for split in (data.val, data.test))
    seconds = time.monotonic() - start
    return Record(val.accuracy, val.loss, test.accuracy, found.parameters, found.passes, found.forwards, seconds, "", found.detail)


def _searched(run: Run, data: Data) -> Found:
    budget, effort = (run.variant.what[name] for name in ("budget", "effort"))
    return search_and_finish(run.task, data, run.seed, budget, effort_of(effort), run.settings)


def _trained(run: Run, data: Data) -> Found:
    """A fixed method, trained alone."""
    make = {"subnet": subnet, "peft": partial(rival, train=data.train), "full": _full}[METHODS[run.method].kind]
    supernet = make(run.task, fresh_model(run.task, data.classes), run.variant.what, run.seed)
    Trainer(supernet, data.train, TrainingSettings(**run.settings)).fit()
    return Found(supernet.backbone, trained_parameters(supernet.backbone), run.epochs * len(data.train), 0, {})


def subnet(task: Task, model: nn.Module, what: Mapping[str, Any], seed: int) -> Supernet:
    """One of ours: the supernet of one subnet."""
    config = decode(what["subnet"])
    supernet = Supernet(model, SearchSpace.of(task.layers).covering(config), seed=seed)
    supernet.set_config(config)
    return supernet


def _full(task: Task, model: nn.Module, what: Mapping[str, Any], seed: int) -> Supernet:
    """All of the network, but for the statistics of batch norms."""
    return Alone(model.requires_grad_(True), task.layers, seed)


def rival(task: Task, model: nn.Module, what: Mapping[str, Any], seed: int, train: Split) -> Supernet:
    """One of peft's tuners, put into the network by peft itself; the head trains with it. EVA looks at the training examples first."""
    import peft

    names = exactly(what["layers"])
    fields = {"target_modules": names, **{k: v for k, v in what.items() if k not in ("peft", "rank", "layers")}}
    if what["peft"] == "IA3":
        shapes = [layer for layer in task.layers if layer.name in what["layers"]]
        config: Any = peft.IA3Config(**fields, feedforward_modules=exactly(feedforward(shapes)))
    elif what["peft"] == "VERA":
        config = peft.VeraConfig(**fields, r=what["rank"], projection_prng_key=seed)
    elif what["peft"] == "GLORA":
        config = peft.GloraConfig(**fields, r=what["rank"])
    else:
        if what["peft"] == "EVA":  # rho 1: every layer keeps its rank, so that the count of parameters is LoRA's
            fields |= {"init_lora_weights": "eva", "eva_config": peft.EvaConfig(rho=1.0)}
        config = peft.LoraConfig(**fields, r=what["rank"], lora_alpha=what["rank"])
    wrapped = peft.get_peft_model(model.eval(), config)
    if what["peft"] == "EVA":
        examples = torch.arange(len(train)).split(EVA_BATCH)
        peft.initialize_lora_eva_weights(
            wrapped,
            [train.take(rows)[0] for rows in examples],
            forward_fn=forward,
            prepare_model_inputs_fn=None,
            prepare_layer_inputs_fn=lambda given, inputs, name: unpadded(given[0], inputs).flatten(0, -2),
            show_progress_bar=False,
        )
    return Alone(model.eval(), task.layers, seed)


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Of the classifier."""
    head = classifier(model)
    return [] if head is None else list(head.parameters())


def trained_parameters(model: nn.Module) -> int:
    """How many numbers were trained, head not counted."""
    head = {id(parameter) for parameter in head_parameters(model)}
    return sum(p.numel() for p in model.parameters() if p.requires_grad and id(p) not in head)


def speed(task: Task) -> float:
    """Seconds for one training example forward and backward, measured with LoRA on a few batches."""
    data, config = task.source.load(task.spec, 0), method_config(SearchSpace.of(task.layers), "lora")
    supernet = subnet(task, fresh_model(task, data.classes), {"subnet": encode(config)}, 0)
    batch, seconds = 32, [0.0]
    split = data.train.part(torch.arange(min(2 * batch, len(data.train))))
    settings = TrainingSettings(**COMMON, batch_size=batch, precision=task.precision, epochs=2, policy="random")
    with sdpa_kernel(ATTENTION):
        Trainer(supernet, split, settings).fit(lambda progress: seconds.append(progress.seconds))
    return (seconds[2] - seconds[1]) / len(split)
