"""What a rung of the finals costs beside its training: a Tuner against plain Ray tasks, side by side, with trials of one epoch on a toy.

python -m benchmarks.rung_overhead --trials 8 --repeats 3
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from statistics import median

import fsspec
import ray
import timm
import torch
from rich.console import Console
from rich.table import Table

from glora_core.backbones import adapted_layers
from glora_core.configs import encode
from glora_core.data.images import ImageSplit
from glora_core.evaluation import Score
from glora_core.finals.run import train_alone
from glora_core.methods import method_config
from glora_core.space import SearchSpace
from glora_core.training import TrainingSettings
from services.cluster.resources import Share
from services.cluster.rung import Task, train_rung
from services.cluster.workload import Workload, settle
from services.protocol import BATCH_SIZE


def toy() -> Workload:
    """A tiny ViT over 30 images of noise."""
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2).eval()
    images = ImageSplit(torch.randint(0, 256, (30, 3, 8, 8), dtype=torch.uint8), torch.arange(30) % 3, (0.5,) * 3, (0.5,) * 3)
    return Workload(model, SearchSpace(adapted_layers(model)), images, images, "accuracy")


def by_tune(workload: "ray.ObjectRef[Workload]", tasks: dict[str, Task]) -> None:
    """As the service does."""
    with tempfile.TemporaryDirectory() as folder:
        files = fsspec.filesystem("file")
        train_rung(workload, tasks, share=Share(), name="rung", filesystem=files, folder=folder, on_done=lambda key, result: None)


def by_tasks(workload: "ray.ObjectRef[Workload]", tasks: dict[str, Task]) -> None:
    """With plain Ray tasks."""
    task = ray.remote(num_cpus=1, max_retries=3)(_train)
    ray.get([task.remote(workload, chosen) for chosen in tasks.values()])


def _train(workload: Workload, task: Task) -> Score:
    settle(Share())
    return train_alone(workload.supernet(task.settings), workload.train, workload.val, task.settings, BATCH_SIZE, workload.plain)[1]


def _seconds(run: Callable[["ray.ObjectRef[Workload]", dict[str, Task]], None], workload: Workload, tasks: dict[str, Task]) -> float:
    start = time.perf_counter()
    run(ray.put(workload), tasks)
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    workload = toy()
    settings = TrainingSettings(epochs=1, policy="fixed", fixed=encode(method_config(workload.space, "lora")))
    tasks = {str(number): Task(settings, None) for number in range(arguments.trials)}
    rounds = [(_seconds(by_tasks, workload, tasks), _seconds(by_tune, workload, tasks)) for _ in range(arguments.repeats)]
    table = Table("rung", "plain tasks, s", "Ray Tune, s", title=f"{arguments.trials} trials of one epoch on a toy, 2 CPUs")
    for number, (plain, tuned) in enumerate(rounds, 1):
        table.add_row(str(number), f"{plain:.1f}", f"{tuned:.1f}")
    table.add_row("median", *(f"{median(column):.1f}" for column in zip(*rounds, strict=True)))
    Console().print(table)


if __name__ == "__main__":
    main()
