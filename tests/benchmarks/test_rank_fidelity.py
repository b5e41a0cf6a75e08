"""Rank fidelity on a made-up task: resumed after any kill, never half a record, and figures that mean what they say."""

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from benchmarks import rank_fidelity
from benchmarks.fidelity_parts.recipes import RECIPES, Experiment, experiment
from benchmarks.fidelity_parts.statistics import Scores, fidelity, places, tau
from benchmarks.fidelity_parts.subnets import chosen_subnets, largest_budget, space_of
from benchmarks.fidelity_parts.supernets import perform_supernet, trained
from benchmarks.fidelity_parts.table import OPEN, markdown, recipes_table
from benchmarks.scale_effects import scale_of
from glora_core.calibration import step_effects
from glora_core.configs import decode
from glora_core.layers.storage import NormalisedStorage
from tests.benchmarks.killing import records_of_killed_and_next_start
from tests.benchmarks.made_up import Shades


def make_experiment(task, recipes=tuple(RECIPES), count=3, epochs=2) -> Experiment:
    return experiment(task, recipes, count, 1e-2, epochs, 0)


def test_it_runs_end_to_end_and_a_second_start_computes_nothing(task, records, monkeypatch):
    found = make_experiment(task)
    assert rank_fidelity.fill([found], records, workers=1) == len(found.alone) + len(RECIPES) == 17
    text = markdown([found], records, "#")
    assert OPEN not in text and "failed" not in text
    monkeypatch.setattr(rank_fidelity, "perform", None)
    monkeypatch.setattr(rank_fidelity, "perform_supernet", None)
    fresh = type(records)(records.folder)
    assert rank_fidelity.fill([found], fresh, workers=1) == 0
    assert markdown([found], fresh, "#") == text


def test_the_same_supernet_twice_comes_to_the_same(task):
    run = make_experiment(task, ["sandwich"]).supernets["sandwich"]
    first, second = perform_supernet(run), perform_supernet(run)
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)


def test_subnets_keep_their_evenly_spaced_budgets_and_the_known_methods_are_among_them(task):
    subnets, full = chosen_subnets(task, 10), largest_budget(task)
    sizes = {name: space_of(task).parameters(decode(text)) for name, text in subnets.items()}
    assert all(sizes[f"drawn {i + 1}"] <= (i + 1) * full / 10 for i in range(10))
    assert sizes["lora"] == full
    assert list(subnets)[-3:] == ["lora", "bitfit", "ssf"]


def test_recipes_that_come_to_the_same_share_a_run_and_no_others_do(task):
    assert len({run.name for run in make_experiment(task).supernets.values()}) == len(RECIPES)
    texts = Shades()
    texts.images = False
    found = make_experiment(replace(task, source=texts))
    assert found.supernets["no augmentation"].name == found.supernets["sandwich"].name
    assert len(found.runs) == len(found.alone) + len(RECIPES) - 1


@pytest.mark.parametrize(("recipe", "passes"), [("random", 1), ("sandwich", 2), ("sandwich, 2 subnets", 3), ("full-sandwich", 3)])
def test_passes_are_as_many_as_the_trainer_makes(task, recipe, passes, monkeypatch):
    learnt = []
    run = make_experiment(task, [recipe], epochs=1).supernets[recipe]
    learn = "glora_core.training.trainer.Trainer._learn"
    original = rank_fidelity.perform_supernet.__globals__["Trainer"]._learn
    monkeypatch.setattr(learn, lambda *arguments: learnt.append(len(arguments[3])) or original(*arguments))
    trained(run, task.source.load(task.spec, 0))
    assert run.passes == sum(learnt) == passes * task.source.size


def scales(supernet) -> torch.Tensor:
    return torch.stack([m.scales for m in supernet.modules() if isinstance(m, NormalisedStorage)])


def test_guessed_scales_are_those_of_a_supernet_that_nothing_was_measured_for(task):
    found = make_experiment(task, ["sandwich", "guessed scales"], epochs=1)
    data = task.source.load(task.spec, 0)
    guessed, measured = (scales(trained(found.supernets[name], data)) for name in ("guessed scales", "sandwich"))
    width = space_of(task).layers[0].in_features
    assert guessed[0, 1, 1] == 1 / width and guessed[0, 0, 1] == 1
    assert not torch.equal(guessed, measured)


@pytest.mark.parametrize(("order", "expected"), [([1, 2, 3, 4, 5], 1.0), ([5, 4, 3, 2, 1], -1.0), ([1, 2, 3, 5, 4], 0.8)])
def test_tau_of_a_known_order(order, expected):
    found = tau([1, 2, 3, 4, 5], order)
    assert found.value == pytest.approx(expected)
    assert found.low <= found.value + 1e-12 and found.value <= found.high + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_tau_with_ties_is_that_of_scipy(seed):
    first, second = np.random.default_rng(seed).integers(6, size=(2, 12))
    assert tau(first, second).value == pytest.approx(kendalltau(first, second).statistic)


def test_tau_of_equal_values_is_none():
    assert np.isnan(tau([1, 1, 1], [1, 2, 3]).low)


def test_equal_accuracies_inside_are_ordered_by_loss():
    inside = [Scores(0.9, 0.5, 0), Scores(0.9, 0.2, 0), Scores(0.95, 0.9, 0), Scores(0.9, 0.5, 0)]
    assert places(inside) == [0, 1, 2, 0]


def test_gaps_are_alone_minus_inside_and_three_points_are_within_three_points():
    alone = [Scores(0.9, 1, 0.93)] * 3
    inside = [Scores(0.8, 1, 0.90), Scores(0.7, 1, 0.89), Scores(0.9, 1, 0.95)]  # 0.93 - 0.90 is above 0.03 in float64
    found = fidelity(alone, inside)
    assert (found.gap_val, found.gap_test) == (pytest.approx(10), pytest.approx(3))
    assert found.close == pytest.approx(2 / 3)


def test_a_write_that_is_cut_short_leaves_no_record(task, records, monkeypatch):
    run = make_experiment(task, ["random"], epochs=1).supernets["random"]

    def die(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        rank_fidelity.finish(run, records)
    assert list(records.folder.glob("*.json")) == []
    assert type(records)(records.folder).get(run) is None


def test_what_is_not_done_is_open_and_what_diverged_is_told(task, records):
    found = make_experiment(task, ["sandwich", "random"])
    assert recipes_table(found, records).rows[0][2:] == [OPEN] * 7
    assert "0 of 6 subnets trained alone so far." in markdown([found], records, "#")
    wild = experiment(task, ["sandwich"], 1, float("1e30"), 1, 0)
    rank_fidelity.fill([wild], records, workers=1)
    text = markdown([wild], records, "#")
    assert "| sandwich | 2 | failed |" in text and "sandwich: diverged: " in text


def test_the_overview_counts_what_is_left(task, records, capsys):
    found = make_experiment(task, ["random"], count=1, epochs=1)
    rank_fidelity.overview([found], records)
    assert "0 of 4" in capsys.readouterr().out
    rank_fidelity.fill([found], records, workers=1)
    rank_fidelity.overview([found], records)
    shown = capsys.readouterr().out
    assert "4 of 4" in shown and "about 0.0 core hours left" in shown


SCRIPT = """
import sys
from pathlib import Path
from tests.benchmarks.made_up import Shades
from benchmarks import rank_fidelity
from benchmarks.fidelity_parts.recipes import experiment
from benchmarks.quality_parts.runs import Records
from benchmarks.quality_parts.tasks import Task
from glora_core.backbones import BackboneSpec

if __name__ == "__main__":
    task = Task("shades/vit", BackboneSpec(sys.argv[1]), Shades(), "random")
    rank_fidelity.fill([experiment(task, ["sandwich", "random"], 6, 1e-2, 20, 0)], Records(Path(sys.argv[2])), int(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_leaves_whole_records_and_the_rest_is_done_at_the_next_start(task, tmp_path, workers):
    folder, script = tmp_path / "records", tmp_path / "script.py"
    script.write_text(SCRIPT)
    before, after = records_of_killed_and_next_start(
        [sys.executable, str(script), task.spec.name, str(folder), str(workers)], folder, workers
    )
    assert len(before) < len(after) == 11 and before.items() <= after.items()


def test_equal_effects_are_those_of_a_low_rank_b_within_a_rounding_to_powers_of_two(task):
    run = make_experiment(task, ["equal effects"], epochs=1).supernets["equal effects"]
    data = task.source.load(task.spec, 0)
    supernet = trained(run, data)
    for name, effects in step_effects(supernet, data.train.take(torch.arange(12))[0]).items():
        support = {shape.name: layer.support for shape, layer in supernet.layers()}[name]
        for place, (tensor, kind) in enumerate(effects):
            scale = scale_of(support)(tensor, kind)
            ratio = effects[tensor, kind] * scale / effects["B", "lora"]
            assert ratio == 0 or scale == 8 or 2**-0.5 <= ratio <= 2**0.5, (name, place)
