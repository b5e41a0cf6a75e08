"""The quality table on a made-up task: resumed after any kill, never half a record, and tuned without a look at `test`."""

import json
import os
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from benchmarks import quality
from benchmarks.quality_parts.methods import METHODS, Unavailable, Variant, budgets
from benchmarks.quality_parts.runs import CHANGES, FORWARD, STARTS, Record, Records, Run
from benchmarks.quality_parts.searched import effort_of, forwards, passes, recorded
from benchmarks.quality_parts.sources import Table
from benchmarks.quality_parts.table import markdown
from benchmarks.quality_parts.tasks import Task
from benchmarks.quality_parts.training import perform, rival, trained_parameters
from benchmarks.quality_parts.tuning import RATES, Case, Effort, first_runs, standing
from glora_core import backbones, effort
from glora_core.configs import LayerConfig, encode, lora
from glora_core.effort import EFFORTS
from glora_core.errors import DataInvalid
from tests.benchmarks.killing import records_of_killed_and_next_start

TINY = Effort(lengths=(1, 2), seeds=2)


def make_case(task: Task, method: str, spent: Effort = TINY) -> Case:
    return Case(task, method, "full", budgets(task.layers)["full"], spent)


def pretend(case: Case, records: Records, val: dict[float, float]) -> list[Run]:
    """Answer every run a case asks for with an accuracy that depends on the rate, until it is settled; the runs in order."""
    done = []
    while missing := standing(case, records).missing:
        for run in missing:
            records.put(run, Record(val[run.rate], 1.0, 0.5, 10, run.epochs, 0, 0.1), {})
            done.append(run)
    return done


@pytest.mark.parametrize("method", ["lora", "peft-lora"])
def test_a_second_start_computes_nothing_and_writes_the_same_table(task, records, method, monkeypatch):
    cases = [make_case(task, method)]
    assert quality.fill(cases, records, workers=1) > 0
    table = markdown(cases, records, "#")
    monkeypatch.setattr(quality, "perform", None)
    fresh = Records(records.folder)
    assert quality.fill(cases, fresh, workers=1) == 0
    assert markdown(cases, fresh, "#") == table
    assert "…" not in table


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_makes_a_record_within_its_budget(task, method, monkeypatch):
    monkeypatch.setattr("benchmarks.quality_parts.methods.EFFORTS", dict.fromkeys(EFFORTS, effort.Effort(1, 3, 1, (1, 1))))
    case = make_case(task, method)
    for variant in case.variants(0):
        record = perform(Run(task, method, variant, 1e-3, 1, 0))
        assert record.failed == "" and record.passes > 0
        assert 0 <= record.val <= 1 and 0 <= record.test <= 1
        alone = record.detail.get("single", {"parameters": record.parameters})
        assert alone["parameters"] <= case.parameters or method == "full"


def test_the_same_run_twice_comes_to_the_same(task):
    run = Run(task, "peft-dora", make_case(task, "peft-dora").variants(0)[0], 1e-2, 2, 1)
    first, second = perform(run), perform(run)
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.kind == "peft"])
def test_rivals_take_the_highest_rank_that_fits(task, method):
    case = make_case(task, method)
    variant = case.variants(0)[0]
    model = rival(task, backbones.load(task.spec, 3), variant.what, 0, task.source.load(task.spec, 0).train).backbone
    size = trained_parameters(model)
    assert size <= case.parameters
    tighter = replace(case, parameters=size - 1)
    try:
        assert variant not in tighter.variants(0)
    except Unavailable as reason:
        assert "over the budget" in str(reason)


def test_a_rival_at_our_rank_of_lora_has_exactly_its_parameters(task):
    data = task.source.load(task.spec, 0)
    assert make_case(task, "peft-lora").variants(0)[0].what["rank"] == 4
    for method in ("peft-lora", "peft-eva"):
        model = rival(task, backbones.load(task.spec, 3), make_case(task, method).variants(0)[0].what, 0, data.train).backbone
        assert trained_parameters(model) == budgets(task.layers)["full"]


def test_eva_points_along_the_inputs_of_the_training_examples(task):
    data = task.source.load(task.spec, 0)
    model = rival(task, backbones.load(task.spec, 3), make_case(task, "peft-eva").variants(0)[0].what, 0, data.train).backbone
    inputs = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            module.register_forward_pre_hook(lambda module, given, name=name: inputs.update({name: given[0].flatten(0, -2)}))
    with torch.no_grad():
        model(data.train.take(torch.arange(len(data.train)))[0])
    for name, x in inputs.items():
        rows = model.get_submodule(name).lora_A["default"].weight.detach()
        centred = x - x.mean(0)
        seen, best = (centred @ rows.T).pow(2).sum(), torch.linalg.svdvals(centred)[: len(rows)].pow(2).sum()
        assert seen > 0.98 * best, name


def test_rates_are_tried_until_the_best_has_worse_neighbours(task, records):
    accuracy = {rate: 0.9 if rate == 3e-2 else 0.5 + 0.01 * place for place, rate in enumerate(RATES)}
    case = make_case(task, "lora", Effort((5,), 1))
    tried = {run.rate for run in pretend(case, records, accuracy)}
    assert tried == {1e-3, 3e-3, 1e-2, 3e-2, 1e-1}
    choice = standing(case, records).choice
    assert choice is not None and [run.rate for run in choice.runs] == [3e-2]


@pytest.mark.parametrize(("rates", "expected"), [((1e-3,), {1e-3}), ((1e-3, 3e-3, 1e-1), {1e-3, 3e-3, 1e-1}), ((1e-2,), {1e-2})])
def test_other_rates_than_those_asked_for_are_not_tried(rates, expected, task, records):
    case = make_case(task, "lora", Effort((5, 8), 2, rates=rates))
    runs = pretend(case, records, {rate: 0.5 + place / 100 for place, rate in enumerate(RATES)})
    assert {run.rate for run in runs} == expected
    assert {run.rate for run in standing(case, records).choice.runs} == {max(expected)}


def test_a_rival_is_also_run_at_our_cost_with_every_seed(task, records):
    case = make_case(task, "peft-lora", Effort((2,), 3, match=9))
    pretend(case, records, {rate: 0.5 + place / 100 for place, rate in enumerate(RATES)})
    choice = standing(case, records).choice
    assert choice is not None
    assert [(run.epochs, run.seed) for run in choice.matched] == [(9, 0), (9, 1), (9, 2)]
    assert "at our cost" in markdown([case], records, "#")


def test_a_task_of_another_pace_is_trained_for_other_epochs(task, records):
    slow = replace(task, pace=0.2)
    case = make_case(slow, "peft-lora", Effort((5, 10), 1, match=20))
    assert {run.epochs for run in pretend(case, records, {rate: 0.5 + place / 100 for place, rate in enumerate(RATES)})} == {1, 2, 4}
    assert make_case(slow, "searched-quick").variants(0)[0].what["effort"]["epochs"] == EFFORTS["quick"].epochs // 5


def test_an_effort_is_recorded_whole_and_read_back():
    quick = EFFORTS["quick"]
    found = recorded(quick)
    assert list(found) == [field.name for field in fields(effort.Effort)]
    assert effort_of(json.loads(json.dumps(found))) == quick
    other = replace(EFFORTS["standard"], candidates=5)
    assert effort_of(recorded(other)) == replace(other, scratch_epochs=())


def test_our_whole_pipeline_is_run_as_the_table_asks_for_it(task):
    tiny = recorded(effort.Effort(2, 4, 1, (1,), candidates=2, learning_rates=(1e-3, 3e-3)))
    (asked,) = first_runs(make_case(task, "searched-quick", Effort((2,), 1)))
    found = perform(replace(asked, variant=Variant("", asked.variant.what | {"effort": tiny})))
    assert found.failed == ""
    assert found.passes == (2 * 2 + 2 * 2 * 1) * 12
    assert set(found.detail["single"]) == {"val", "test", "parameters"}
    assert found.detail["single"]["parameters"] <= asked.variant.what["budget"]


def test_rivals_are_given_what_our_pipeline_costs_unless_asked_otherwise(task):
    spent = replace(EFFORTS["standard"], scratch_epochs=())
    examples = passes(spent, 12) + FORWARD * forwards(spent, 200, 12)
    assert make_case(task, "peft-lora", Effort((2,), 1, match="ours")).at_our_cost == [round(examples / 12)]
    assert make_case(task, "peft-lora", Effort((2,), 1)).at_our_cost == make_case(task, "lora", Effort((2,), 1, match=3)).at_our_cost == []


@pytest.mark.parametrize(("given", "found"), [((), "ours"), (("none",), None), (("40",), 40)])
def test_match_cost_is_ours_none_or_a_number_of_epochs(tmp_path, given, found):
    for name in ("data", "backbones"):
        (tmp_path / name).mkdir()
    asked = ["--match-cost", *given] if given else []
    assert quality.parse(["--shared", str(tmp_path), *asked]).match_cost == found


def test_only_val_chooses(task, records):
    case = make_case(task, "lora", Effort((5,), 1))
    while missing := standing(case, records).missing:
        for run in missing:
            good = run.rate == 1e-3
            records.put(run, Record(0.9 if good else 0.8, 1.0, 0.1 if good else 1.0, 10, 5, 0, 0.1), {})
    choice = standing(case, records).choice
    assert choice is not None and choice.runs[0].rate == 1e-3


def test_a_method_that_fails_is_shown_with_its_reason(task, records):
    case = make_case(task, "lora", Effort((5,), 1))
    while missing := standing(case, records).missing:
        for run in missing:
            records.put(run, Record(0.0, 1e9, 0.0, 0, 5, 0, 0.1, "diverged: the loss became nan"), {})
    table = markdown([case], records, "#")
    assert "| LoRA | failed | – |" in table and "LoRA, shades/vit: diverged: the loss became nan." in table


def test_a_method_that_a_task_does_not_have_is_told_apart_from_one_that_is_not_done_yet(task, records):
    none, waiting = replace(make_case(task, "lora"), parameters=1), make_case(task, "bitfit")
    table = markdown([none, waiting], records, "#")
    assert "| BitFit | … | – |" in table and "LoRA, shades/vit: over the budget of 1 parameters." in table


def test_a_task_of_one_run_differs_by_everything_that_decides_it(task):
    variant = make_case(task, "lora").variants(0)[0]
    run = Run(task, "lora", variant, 1e-3, 5, 0)
    others = [replace(run, rate=3e-3), replace(run, epochs=6), replace(run, seed=1), replace(run, task=replace(task, weights="other"))]
    assert len({run.name, *(other.name for other in others)}) == 5


def test_when_a_change_of_images_becomes_another_its_old_records_count_no_longer_and_all_others_do(task, monkeypatch):
    run = Run(task, "lora", make_case(task, "lora").variants(0)[0], 1e-3, 5, 0)
    runs = [replace(run, task=replace(task, augment=kinds)) for kinds in (("crop", "affine"), ("crop",))]
    before = [run.name for run in runs]
    monkeypatch.setitem(CHANGES, "affine", CHANGES["affine"] + 1)
    assert [run.name == name for run, name in zip(runs, before, strict=True)] == [False, True]


def test_when_starts_change_old_records_of_subnets_that_adapt_count_no_longer_and_all_others_do(task, monkeypatch):
    variant = make_case(task, "lora").variants(0)[0]
    codes = {rank: encode((LayerConfig(B=lora(rank)),) * len(task.layers)) for rank in (1, 4)} | {
        0: encode((LayerConfig(),) * len(task.layers))
    }
    runs = {rank: Run(task, "lora", replace(variant, what={"subnet": code}), 1e-3, 5, 0) for rank, code in codes.items()}
    before = {rank: run.name for rank, run in runs.items()}
    monkeypatch.setattr("benchmarks.quality_parts.runs.STARTS", STARTS + 1)
    assert {rank: run.name == before[rank] for rank, run in runs.items()} == {0: True, 1: False, 4: False}


def test_a_write_that_is_cut_short_leaves_no_record(task, records, monkeypatch):
    run = Run(task, "lora", make_case(task, "lora").variants(0)[0], 1e-3, 1, 0)

    def die(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        records.put(run, Record(0.9, 1.0, 0.9, 1, 1, 0, 0.1), {})
    assert Records(records.folder).get(run) is None
    assert list(records.folder.glob("*.json")) == []


SCRIPT = """
import sys
from pathlib import Path
from tests.benchmarks.made_up import Shades
from tests.benchmarks.test_quality import make_case
from benchmarks import quality
from benchmarks.quality_parts.runs import Records
from benchmarks.quality_parts.tasks import Task
from benchmarks.quality_parts.tuning import Effort
from glora_core.backbones import BackboneSpec

if __name__ == "__main__":
    task = Task("shades/vit", BackboneSpec(sys.argv[1]), Shades(), "random")
    cases = [make_case(task, method, Effort((20, 40), 2)) for method in ("lora", "bitfit", "ssf")]
    quality.fill(cases, Records(Path(sys.argv[2])), int(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_leaves_whole_records_and_the_rest_is_done_at_the_next_start(task, tmp_path, workers):
    folder, script = tmp_path / "records", tmp_path / "script.py"
    script.write_text(SCRIPT)
    before, after = records_of_killed_and_next_start(
        [sys.executable, str(script), task.spec.name, str(folder), str(workers)], folder, workers
    )
    assert len(after) > len(before) and before.items() <= after.items()
    cases = [make_case(task, method, Effort((20, 40), 2)) for method in ("lora", "bitfit", "ssf")]
    assert all(standing(case, Records(folder)).choice for case in cases)


def test_missing_shared_data_is_told_with_what_to_give(tmp_path, capsys):
    with pytest.raises(SystemExit):
        quality.parse(["--shared", str(tmp_path)])
    assert f"{tmp_path} has no folder data/; accepted is one with data/ and backbones/" in capsys.readouterr().err


def few_shot_table(folder: Path, shots: int) -> Table:
    file = folder / "data.csv"
    rows = [f"{split}-{label}-{i},{label},{split}" for split in ("train", "val", "test") for label in "ab" for i in range(5)]
    file.write_text("\n".join(["text,label,split", *rows]) + "\n")
    return Table(file, "text", shots=shots)


def test_few_shot_examples_follow_the_seed_and_val_and_test_do_not(tmp_path):
    table = few_shot_table(tmp_path, 2)
    first, again, other = table.draw(0), table.draw(0), table.draw(1)
    assert first == again and first["train"] != other["train"]
    assert [label for _, label in first["train"]] == [0, 0, 1, 1]
    assert first["val"] == other["val"] and first["test"] == other["test"]


def test_more_shots_than_a_class_has_are_refused(tmp_path):
    with pytest.raises(DataInvalid, match=r"class 'a' .* has 5 training examples; 6 are asked for"):
        few_shot_table(tmp_path, 6).draw(0)
