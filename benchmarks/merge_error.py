"""What merging loses, and what it would lose in the precision of the result, as most libraries merge.

`python benchmarks/merge_error.py` prints a table of models × precisions, each row from the same random subnets merged both ways, one after
the other. Backbones have random weights at their real sizes: rounding depends on sizes and precision, not on what was learned.
Errors of numbers and of layers' outputs are given as a share of their derived bound (`glora_core.layers.bounds`), so that what is above
1 would be refused; that of the logits as a share of the largest logit.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

if not __package__:  # run as a script, not as a module
    sys.path.insert(0, str(Path(__file__).parents[1]))

from glora_core.backbones import Inputs, adapted_layers
from glora_core.configs import TENSORS, LayerConfig, SubnetConfig
from glora_core.export.verify import compare_layers, merge_error, verify
from glora_core.layers import GLoRALayer, dense_bias, dense_weight
from glora_core.layers.bounds import merged_bound
from glora_core.sampling import stream
from glora_core.space import SearchSpace
from glora_core.supernet import Supernet

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
EXAMPLES = 4
console = Console(width=140)


@dataclass(frozen=True)
class Loss:
    """Largest error of a merged number and of a layer's output over its bound, and of the logits over the largest logit."""

    number: float = 0.0
    output: float = 0.0
    logits: float = 0.0

    def worst(self, other: "Loss") -> "Loss":
        """The larger of each."""
        return Loss(max(self.number, other.number), max(self.output, other.output), max(self.logits, other.logits))


def image_model(name: str, size: int, **arguments: Any) -> Callable[[], tuple[nn.Module, Inputs]]:
    """A timm model and images of noise."""
    images = torch.randn(EXAMPLES, 3, size, size, generator=torch.Generator().manual_seed(2))
    return lambda: (timm.create_model(name, num_classes=10, **arguments), images)


def text_model(kind: str, **arguments: Any) -> Callable[[], tuple[nn.Module, Inputs]]:
    """A transformers model and random tokens."""
    tokens = torch.randint(3, 1000, (EXAMPLES, 32), generator=torch.Generator().manual_seed(2))

    def make() -> tuple[nn.Module, Inputs]:
        import transformers

        config = transformers.AutoConfig.for_model(kind, vocab_size=1000, pad_token_id=0, **arguments)
        factory = transformers.AutoModelForSequenceClassification if kind == "bert" else transformers.AutoModelForCausalLM
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        return factory.from_config(config), inputs

    return make


MODELS = {
    "ViT-S/14 at 84": image_model("vit_small_patch14_dinov2", 84, img_size=84),
    "Swin-T at 112": image_model("swin_tiny_patch4_window7_224", 112, img_size=112),
    "ConvNeXt atto at 96": image_model("convnext_atto", 96),
    "MobileNetV2 at 96": image_model("mobilenetv2_100", 96),
    "BERT, 6 × 384": text_model("bert", hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=6),
    "GPT-2, 6 × 384": text_model("gpt2", n_embd=384, n_layer=6, n_head=6),
}


@torch.no_grad()
def supernet_of(model: nn.Module) -> Supernet:
    """A supernet with random support tensors, and random biases and statistics where a fresh model has constants."""
    for name, numbers in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith(("bias", "running_mean")):
            numbers.normal_(std=0.1)
        if name.endswith("gamma"):  # of a fresh LayerScale 1e-5, which would hide what is behind it
            numbers.fill_(0.5)
    supernet = Supernet(model, SearchSpace(adapted_layers(model), ranks=(4, 16)))
    for _, numbers in supernet.trainable():
        numbers.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    return supernet.eval()


def random_config(supernet: Supernet, seed: int) -> SubnetConfig:
    """One choice per tensor and layer, uniformly."""
    rng = stream(seed)
    return tuple(configs[rng.integers(len(configs))] for configs in supernet.space.layer_configs)


def in_the_precision_itself(layer: GLoRALayer, config: LayerConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """The merge as most libraries do it: every step in the precision of the result."""
    A, B, C, D, E = (layer.support.acting(tensor, config[tensor], dtype) for tensor in TENSORS)
    weight, bias = layer.matrix(layer.weight).to(dtype), None if layer.bias is None else layer.bias.to(dtype)
    return layer.layout(dense_weight(weight, A, B)), dense_bias(weight, bias, C, D, E)


@torch.no_grad()
def number_ratio(supernet: Supernet, plain: nn.Module, config: SubnetConfig) -> float:
    """The largest error of a merged weight over its bound."""
    return max(_number_ratios(supernet, plain, config))


def _number_ratios(supernet: Supernet, plain: nn.Module, config: SubnetConfig) -> Iterator[float]:
    for (shape, layer), choice in zip(supernet.layers(), config, strict=True):
        stored = plain.get_submodule(shape.name).get_parameter("weight")
        error, bound = (stored.double() - layer.merged(choice, torch.float64)[0]).abs(), merged_bound(layer, choice, stored.dtype)[0]
        yield float((error / bound).max())


@torch.no_grad()
def measure(supernet: Supernet, config: SubnetConfig, dtype: torch.dtype, examples: Inputs) -> tuple[Loss, Loss]:
    """What is lost by merging in float64, which is verified too, and by merging in the precision of the result."""
    plain = supernet.bare()
    if not hasattr(plain, "base_model_prefix"):  # timm's masks go with the weights; transformers keeps rotary frequencies in float32
        plain.to(dtype)
    plain.load_state_dict(supernet.merged_state(config, dtype), assign=True)
    found = verify(supernet, plain, config, examples)
    ours = Loss(number_ratio(supernet, plain, config), found.worst_ratio, found.merge_error)
    for (shape, layer), choice in zip(supernet.layers(), config, strict=True):
        weight, bias = in_the_precision_itself(layer, choice, dtype)
        module = plain.get_submodule(shape.name)
        module.get_parameter("weight").copy_(weight)
        if bias is not None and not shape.absorber:
            module.get_parameter("bias").copy_(bias)
    _, worst = compare_layers(supernet, plain, examples)
    return ours, Loss(number_ratio(supernet, plain, config), worst.ratio, merge_error(supernet, plain, config, examples))


def show(rows: list[tuple[str, torch.dtype, Loss, Loss]]) -> None:
    """Print the table."""
    table = Table(title="error of merging in float64 | in the precision of the result")
    for heading in ("model", "precision", "logits, of the largest", "layer output / bound", "merged weight / bound"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, dtype, ours, theirs in rows:
        pairs = ((ours.logits, theirs.logits), (ours.output, theirs.output), (ours.number, theirs.number))
        table.add_row(name, str(dtype).removeprefix("torch."), *(f"{mine:.1e} | {other:.1e}" for mine, other in pairs))
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subnets", type=int, default=2, help="random subnets per model")
    torch.set_num_threads(1)  # so that a busy machine does not change the order of sums
    subnets, rows = parser.parse_args().subnets, []
    for name, make in MODELS.items():
        torch.manual_seed(0)
        model, examples = make()
        single = supernet_of(model)
        for dtype in DTYPES:
            supernet = single if dtype != torch.float64 else supernet_of(make()[0].double())
            started, ours, theirs = time.perf_counter(), Loss(), Loss()
            for seed in range(subnets):
                mine, other = measure(supernet, random_config(supernet, seed), dtype, examples)
                ours, theirs = ours.worst(mine), theirs.worst(other)
            rows.append((name, dtype, ours, theirs))
            print(f"{name}, {dtype}: {(time.perf_counter() - started) / subnets:.1f} s a subnet", file=sys.stderr)
    show(rows)
    console.print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads, {subnets} random subnets a row")


if __name__ == "__main__":
    main()
