"""The folder of a run: its training state, its evaluations and its results, written so that a kill at any moment costs a few epochs."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from glora_core.configs import SubnetConfig, decode, encode
from glora_core.errors import ConfigInvalid
from glora_core.search import Evaluated, SearchSettings, propose, rank
from glora_core.space import SearchSpace
from glora_core.training import Progress, Trainer

_STATES = 50
"""Times in a training that its state is written."""


class Run:
    """A run's folder.

    Args:
        folder: made if it is not there.
        asked: all that decides the numbers, in plain JSON types.

    Raises:
        ConfigInvalid: the folder holds a run of other settings.
    """

    def __init__(self, folder: Path, asked: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        told = json.loads(json.dumps(asked))
        recipe = folder / "recipe.json"
        if recipe.is_file():
            known = json.loads(recipe.read_text())
            if known != told:
                names = ", ".join(sorted(name for name in known.keys() | told.keys() if known.get(name) != told.get(name)))
                raise ConfigInvalid(f"{folder} holds a run with another {names}; give another folder, or the settings in {recipe}")
        else:
            self.write("recipe.json", json.dumps(told, indent=1))

    def write(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        partial = self.folder / f"{name}.partial"
        partial.write_text(text)
        os.replace(partial, self.folder / name)

    def train(self, trainer: Trainer) -> list[float]:
        """Train to the end, from the last state there is; returns the loss of every epoch, in nats."""
        file, losses = self.folder / "supernet.pt", list[float]()
        if file.is_file():
            saved = torch.load(file, map_location="cpu", weights_only=True)
            trainer.load_state(saved["trainer"])
            losses += saved["losses"]
        every = max(1, trainer.settings.epochs // _STATES)

        def keep(progress: Progress) -> None:
            losses.append(progress.loss)
            if progress.epoch % every and not trainer.finished:
                return
            torch.save({"trainer": trainer.state(), "losses": losses}, partial := file.with_suffix(".partial"))
            os.replace(partial, file)
            print(f"epoch {progress.epoch} of {progress.epochs}: loss {progress.loss:.3f}, {progress.seconds:.0f} s", flush=True)

        trainer.fit(keep)
        return losses

    def search(
        self,
        space: SearchSpace,
        budget: int,
        settings: SearchSettings,
        seed: int,
        evaluate: Callable[[SubnetConfig], Evaluated],
    ) -> tuple[Evaluated, list[float]]:
        """Search, with what an earlier start has evaluated; returns the best, and the best accuracy on val after each generation."""
        known, progress, history = self._known(), list[float](), list[Evaluated]()
        with (self.folder / "evaluations.jsonl").open("a") as file:
            for generation in range(settings.generations):
                for proposal in propose(space, budget, settings, history, generation, seed):
                    code = encode(proposal.config)
                    if code not in known:
                        known[code] = evaluate(proposal.config)
                        file.write(json.dumps(_row(known[code])) + "\n")
                        file.flush()
                    history.append(replace(known[code], generation=generation))
                progress.append(rank(history)[0].accuracy)
                print(f"generation {generation + 1} of {settings.generations}: best val {progress[-1]:.1%}", flush=True)
        return rank(history)[0], progress

    def _known(self) -> dict[str, Evaluated]:
        """Evaluations of earlier starts by the subnet's text; a line that a kill has cut off is put away."""
        file = self.folder / "evaluations.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):
            self.write(file.name, "".join(whole))
        return {row["config"]: Evaluated(**(row | {"config": decode(row["config"])})) for row in map(json.loads, whole)}


def _row(found: Evaluated) -> dict[str, Any]:
    """An evaluation in plain JSON types."""
    return {"config": encode(found.config), "accuracy": found.accuracy, "loss": found.loss, "parameters": found.parameters}
