"""On what device a process computes, and how much of a GPU's memory it may take."""

import logging

import pytest
import torch

from services.cluster.resources import Share
from services.cluster.workload import settle


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A machine with a GPU, as torch sees it; gives the parts of its memory that processes were bound to."""
    found: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", found.append)
    return found


@pytest.mark.parametrize(("gpus", "bound"), [(0.5, [0.5]), (0.1, [0.1]), (1.0, []), (0.0, [])])
def test_process_with_a_part_of_a_gpu_may_take_that_part_of_its_memory(gpus: float, bound: list[float], bounds: list[float]) -> None:
    device = settle(Share(1, gpus))

    assert bounds == bound
    assert device.type == ("cuda" if gpus else "cpu")


@pytest.mark.parametrize("gpus", [0.5, 1.0])
def test_process_with_a_gpu_that_torch_does_not_find_computes_on_the_cpu_and_says_so(
    gpus: float, bounds: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with caplog.at_level(logging.WARNING):
        device = settle(Share(0, gpus))

    assert (device.type, bounds) == ("cpu", [])
    assert f"{gpus:g} GPU" in caplog.text
