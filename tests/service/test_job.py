"""The main job, from submission to a checkpoint that plain timm loads, over HTTP against a running service."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from glora_core.backbones import BackboneSpec, input_transform
from glora_core.data.folders import scan
from glora_core.data.images import load_split
from glora_core.data.shifted import scan_test
from services.client import ServiceError
from tests.service.conftest import Service, kill

pytestmark = pytest.mark.slow

CHECK = Path(__file__).parents[2] / "examples" / "check_checkpoint.py"


@pytest.fixture(scope="module")
def sketch(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the three classes of the data's test split, the second and the third."""
    root = tmp_path_factory.mktemp("sketch")
    for name in ("class1", "class2"):
        shutil.copytree(data / "test" / name, root / name)
    return root


@pytest.fixture(scope="module")
def finished(service: Service, data: Path, sketch: Path, backbone: str) -> dict[str, Any]:
    """A finished few-shot job with baselines and a further test set, shared by the tests of this file."""
    job = service.client.submit(
        {
            "backbone": {"name": backbone},
            "data": {"path": str(data), "shots": 16, "also_test": {"sketch": str(sketch)}},
            "budget": 700,
            "training": {"epochs": 4, "learning_rate": 0.01},
            "search": {"population": 12, "generations": 3},
            "finals": {"candidates": 2, "learning_rates": [0.01, 0.0033], "epochs": [1, 2], "scratch_epochs": 3, "soup": False},
            "baselines": "trained",
        }
    )
    return service.wait(job["id"])


def test_job_succeeds_within_its_budget(finished: dict[str, Any]) -> None:
    assert finished["state"] == "succeeded", finished["failure"]
    assert finished["result"]["winner"]["parameters"] <= 700
    assert finished["data"]["counts"]["train"] == [16, 16, 16]
    inside, alone = ([e["source"] for e in finished["result"]["baselines"] if ("epochs" in e) == trained] for trained in (False, True))
    assert inside[:2] == ["linear-probe", "bitfit"]
    assert alone == ["linear-probe", "bitfit", "lora"]
    assert all(entry["supernet"] == finished["supernet"] for entry in finished["result"]["baselines"] if "epochs" not in entry)
    assert all(entry["parameters"] <= 700 for entry in finished["result"]["baselines"])


def test_winner_is_the_first_finalist_and_no_worse_on_val_than_any_known_method(finished: dict[str, Any]) -> None:
    winner, finalists = finished["result"]["winner"], finished["result"]["finalists"]
    assert all(winner[name] == value for name, value in finalists[0].items())
    known = [entry for entry in finalists if not entry["source"].startswith("search")]
    assert {entry["source"] for entry in known} >= {"linear-probe", "bitfit", "lora"}
    assert all(winner["val_accuracy"] >= entry["val_accuracy"] for entry in known)
    assert {(entry["start"], entry["rung"], entry["epochs"]) for entry in finalists} == {
        ("supernet", 0, 0),
        ("supernet", 1, 1),
        ("scratch", 2, 2),
        ("scratch", 1, 3),
    }
    assert {entry["learning_rate"] for entry in finalists if entry["rung"] == 1} == {0.01, 0.0033}


def test_the_expected_time_is_told_before_it_trains_and_again_after_every_phase(service: Service, finished: dict[str, Any]) -> None:
    log = list(service.client.events(finished["id"]))
    told = [event["data"] for event in log if event["kind"] == "estimate"]
    assert [data["over"] for data in told] == [[], ["supernet"], ["supernet", "search"], ["supernet", "search", "finals"]]
    assert [event["kind"] for event in log].index("estimate") < [event["kind"] for event in log].index("epoch")
    assert told[0]["text"].startswith("about ") and all(0 < seconds < 300 for seconds in told[0]["phases"].values())
    assert told[-1]["left_seconds"] == told[-1]["phases"]["export"]
    assert finished["expected"] == {name: told[-1][name] for name in ("text", "seconds", "left_seconds", "phases", "over")}


def test_every_candidate_of_every_generation_is_stored_with_its_fitness(service: Service, finished: dict[str, Any]) -> None:
    rows = [dict(row) for row in service.populations(finished["id"])]
    assert [(int(row["generation"]), int(row["position"])) for row in rows] == [(g, p) for g in range(3) for p in range(12)]
    assert {row["operator"] for row in rows if row["generation"] == "0"} == {"seed", "random"}
    assert {row["operator"] for row in rows if row["generation"] == "1"} == {"crossover", "mutation"}
    assert all(int(row["parameters"]) <= 700 for row in rows)


def test_downloaded_checkpoint_reproduces_the_reported_accuracy_with_plain_timm(
    service: Service, finished: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    folder = service.client.download(finished["id"], tmp_path / "checkpoint")
    expected = finished["result"]["winner"]["test_accuracy"]
    run = subprocess.run(
        [sys.executable, "-P", str(CHECK), str(folder), str(data / "test"), repr(expected)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert json.loads((folder / "manifest.json").read_text())["metrics"]["test_accuracy"] == expected


def test_winner_and_baselines_are_scored_on_further_test_sets_among_their_classes(
    service: Service, finished: dict[str, Any], sketch: Path, tmp_path: Path
) -> None:
    folder = service.client.download(finished["id"], tmp_path / "checkpoint")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    split = load_split(scan_test(sketch, scan(finished["request"]["data"]["path"])), "test", input_transform(model, BackboneSpec("")))
    pixels, labels = split.take(torch.arange(len(split)))
    with torch.inference_mode():
        right = model(pixels)[:, 1:].argmax(-1) + 1 == labels
    recalls = [float(right[labels == label].double().mean()) for label in (1, 2)]

    found = finished["result"]["winner"]["also_test"]["sketch"]
    assert (found["accuracy"], found["examples"]) == (int(right.sum()) / 24, 24)
    assert (found["macro_accuracy"], found["metric"]) == (pytest.approx(sum(recalls) / 2), found["accuracy"])
    assert all(set(entry["also_test"]) == {"sketch"} for entry in finished["result"]["baselines"])
    assert json.loads((folder / "manifest.json").read_text())["metrics"]["also_test"] == {"sketch": found}


def test_second_job_with_the_same_supernet_trains_none(service: Service, finished: dict[str, Any]) -> None:
    request = finished["request"] | {"budget": 500, "baselines": False, "finals": {"mode": "off"}}
    job = service.wait(service.client.submit(request)["id"])
    kinds = {event["kind"] for event in service.client.events(job["id"])}
    assert job["state"] == "succeeded"
    assert job["supernet"] == finished["supernet"]
    assert "supernet_found" in kinds and "epoch" not in kinds


def test_second_job_with_another_metric_measures_anew_and_trains_nothing(
    service: Service, finished: dict[str, Any], tmp_path: Path
) -> None:
    request = finished["request"] | {"finals": finished["request"]["finals"] | {"mode": "off"}}
    request["search"] = request["search"] | {"metric": "MulticlassF1Score"}

    job = service.wait(service.client.submit(request)["id"])

    assert job["state"] == "succeeded", job["failure"]
    measured = [float(dict(row)["fitness"]) for row in service.populations(job["id"])]
    assert job["result"]["winner"]["val_metric"] == job["best"]["fitness"] == max(measured)
    assert job["best"]["fitness"] != job["best"]["accuracy"]
    assert [e["source"] for e in job["result"]["baselines"]] == [e["source"] for e in finished["result"]["baselines"]]
    events = list(service.client.events(job["id"]))
    assert next(e["data"]["from_cache"] for e in events if e["kind"] == "generation") == 0
    alone = [entry for entry in finished["result"]["baselines"] if "epochs" in entry]
    assert len([e for e in events if e["kind"] == "finalist"]) == 2 * len(alone)  # at two rates
    assert {"supernet", "finalist"}.isdisjoint(row["kind"] for row in service.client.artifacts(job["id"]))
    folder = service.client.download(job["id"], tmp_path / "checkpoint")
    metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
    assert metrics["metric"] == "MulticlassF1Score"
    assert metrics.keys() >= {"val_metric", "test_metric", "val_macro_accuracy", "test_macro_accuracy"}
    further = [entry["also_test"]["sketch"] for entry in (job["result"]["winner"], *job["result"]["baselines"])]
    assert metrics["also_test"] == {"sketch": further[0]}
    assert any(found["metric"] != found["accuracy"] for found in further)


def test_job_over_data_that_changed_since_submission_fails_with_its_reason(
    service: Service, request_body: dict[str, Any], tmp_path: Path
) -> None:
    import shutil

    copy = shutil.copytree(request_body["data"]["path"], tmp_path / "data")
    blocker = service.client.submit(request_body | {"search": {"population": 4, "generations": 2}})
    job = service.client.submit(request_body | {"data": {"path": str(copy)}})
    (copy / "val" / "class0" / "0.png").unlink()
    service.wait(blocker["id"])
    failed = service.wait(job["id"])
    assert failed["state"] == "failed"
    assert failed["failure"]["reason"] == "data_invalid"
    assert "changed" in failed["failure"]["message"]


def test_killed_evaluator_is_replaced_and_the_job_succeeds(service: Service, request_body: dict[str, Any]) -> None:
    request_body["search"] |= {"generations": 60, "evaluators": 2}
    job = service.client.submit(request_body)
    service.wait_for_event(job["id"], lambda event: event["kind"] == "generation" and event["data"]["generation"] == 2)
    evaluator = service.children()["ray-evaluator"]
    parent = Path(f"/proc/{evaluator}/stat").read_text().rpartition(")")[2].split()[1]
    assert "services.scheduler.warm_process" in Path(f"/proc/{parent}/cmdline").read_text(), "it is not forked from what has torch loaded"
    kill(evaluator)
    over = service.wait(job["id"])
    assert over["state"] == "succeeded", over["failure"]
    assert over["generations_done"] == 60
    assert not any(event["kind"] in ("requeued", "resumed") for event in service.client.events(job["id"]))


def test_cancelled_job_ends_and_leaves_its_generations(service: Service, request_body: dict[str, Any]) -> None:
    request_body["search"] |= {"generations": 2000}
    job = service.client.submit(request_body)
    service.wait_for_event(job["id"], lambda event: event["kind"] == "generation")
    service.client.cancel(job["id"])
    over = service.wait(job["id"])
    assert over["state"] == "cancelled"
    assert over["generations_done"] >= 1
    with pytest.raises(ServiceError, match="only a succeeded job"):
        service.client.download(job["id"], Path("never"))


def test_job_that_no_cluster_of_this_size_can_hold_is_refused_or_fails_with_what_there_is(
    service: Service, request_body: dict[str, Any]
) -> None:
    request_body["training"] |= {"workers": 64}
    with pytest.raises(ServiceError, match="64 training workers with one CPU each, and the cluster has at most 2 CPUs"):
        service.client.submit(request_body)

    request_body["training"] |= {"use_gpu": True}  # how many GPUs there are is not known before the job runs
    job = service.wait(service.client.submit(request_body)["id"])
    assert (job["failure"]["reason"], job["attempts"]) == ("resources_unavailable", 1)
    assert "64 training workers" in job["failure"]["message"]
    deadline = time.monotonic() + 30  # the scheduler stores the rest of the log once the job's process has ended
    while "ResourcesUnavailable" not in service.client.logs(job["id"]):
        assert time.monotonic() < deadline, service.client.logs(job["id"])
        time.sleep(0.2)


def test_diverging_training_fails_with_its_reason(service: Service, request_body: dict[str, Any]) -> None:
    request_body["training"] |= {"learning_rate": 10, "weight_decay": 10, "epochs": 400, "policy": "random", "entanglement": "paper"}
    job = service.wait(service.client.submit(request_body)["id"])
    assert job["state"] == "failed"
    assert job["failure"]["reason"] == "diverged"
