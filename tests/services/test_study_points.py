"""Drawing the trials of a study: combinations of values, draws from ranges, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.job_request import JobRequest
from services.study_points import SweepInvalid, draw, with_settings
from services.study_request import StudyRequest

BASE = {"backbone": {"name": "toy_vit"}, "data": {"path": "/data/flowers"}, "budget": 700}


def study(sweep: dict[str, Any], **fields: Any) -> StudyRequest:
    return StudyRequest.model_validate({"base": BASE, "sweep": sweep} | fields)


def settings(sweep: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    return [trial.settings for trial in draw(study(sweep, **fields))]


def test_values_are_combined_with_the_last_setting_changing_fastest() -> None:
    found = settings({"search.population": {"values": [4, 6]}, "seed": {"values": [0, 1]}})

    assert [tuple(row.values()) for row in found] == [(4, 0), (4, 1), (6, 0), (6, 1)]


def test_every_trial_is_the_base_with_its_settings_put_in() -> None:
    (trial,) = draw(study({"search.population": {"values": [4]}, "budget": {"values": ["0.5k"]}}))

    job = JobRequest.model_validate(trial.request)
    assert (job.search.population, job.budget, job.backbone.name) == (4, 500, "toy_vit")
    assert "search" not in BASE


def test_numbers_of_an_effort_follow_the_swept_setting() -> None:
    slow, fast = (JobRequest.model_validate(t.request) for t in draw(study({"training.learning_rate": {"values": [0.001, 0.002]}})))

    assert fast.finals.learning_rates == pytest.approx([2 * rate for rate in slow.finals.learning_rates or []], rel=0.05)


def test_draws_are_the_same_each_time_and_for_every_combination_of_values() -> None:
    sweep = {"search.population": {"values": [4, 6]}, "search.mutation_probability": {"low": 0.05, "high": 0.5}}
    found = settings(sweep, samples=3, seed=5)

    assert found == settings(sweep, samples=3, seed=5)
    assert found != settings(sweep, samples=3, seed=6)
    drawn = [row["search.mutation_probability"] for row in found]
    assert drawn[0::2] == drawn[1::2]
    assert len(set(drawn)) == 3


def test_draw_of_a_setting_does_not_depend_on_the_others_that_are_swept() -> None:
    alone = settings({"training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}, samples=2)
    both = settings(
        {"training.ema": {"low": 0, "high": 0.9}, "training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}, samples=2
    )

    assert [row["training.learning_rate"] for row in alone] == [row["training.learning_rate"] for row in both]


@given(st.integers(0, 2**40), st.booleans(), st.integers(1, 50), st.integers(1, 200))
def test_whole_numbers_are_drawn_between_their_ends(seed: int, log: bool, low: int, span: int) -> None:
    found = settings({"search.population": {"low": low - 0.5, "high": low + span, "log": log}}, samples=4, seed=seed)

    values = [row["search.population"] for row in found]
    assert all(isinstance(value, int) and max(low - 0.5, 1) <= value <= low + span for value in values)


@given(st.integers(0, 2**40), st.booleans(), st.floats(1e-6, 1), st.floats(1.001, 1e4))
def test_numbers_are_drawn_between_their_ends(seed: int, log: bool, low: float, factor: float) -> None:
    (row,) = settings({"training.learning_rate": {"low": low, "high": low * factor, "log": log}}, seed=seed)

    assert low <= row["training.learning_rate"] <= low * factor


def test_logarithmic_draws_come_from_every_power_of_ten() -> None:
    found = settings({"training.weight_decay": {"low": 1e-6, "high": 1, "log": True}}, samples=60, max_trials=60)

    powers = {f"{row['training.weight_decay']:.0e}"[-3:] for row in found}
    assert powers >= {"-06", "-05", "-04", "-03", "-02", "-01"}


def test_equal_trials_come_once() -> None:
    assert len(settings({"search.population": {"low": 3, "high": 4}}, samples=30)) == 2


@pytest.mark.parametrize(
    ("sweep", "field", "said"),
    [
        pytest.param({"search.populaton": {"values": [1]}}, "sweep.search.populaton", "no setting that can be swept", id="unknown field"),
        pytest.param({"quest.population": {"values": [1]}}, "sweep.quest.population", "no part 'quest'", id="unknown part"),
        pytest.param({"search": {"values": [{}]}}, "sweep.search", "no setting that can be swept", id="a whole part"),
        pytest.param({"search.metric": {"values": ["accuracy"]}}, "sweep.search.metric", "no setting", id="what trials are compared by"),
        pytest.param({"priority": {"values": [1]}}, "sweep.priority", "no setting", id="place in the queue"),
        pytest.param({"search.strategy": {"low": 0, "high": 1}}, "sweep.search.strategy", "is no number", id="range of names"),
        pytest.param(
            {"search.population": {"low": 4.2, "high": 4.8}}, "sweep.search.population", "there is none from 4.2", id="none within"
        ),
        pytest.param({"seed": {"values": list(range(51))}}, "max_trials", "has 51 trials, max_trials is 50", id="too many"),
    ],
)
def test_sweep_that_cannot_be_made_is_refused_by_its_field(sweep: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(SweepInvalid, match=said) as refusal:
        draw(study(sweep))

    assert refusal.value.field == field


def test_setting_of_a_part_that_is_no_object_is_refused() -> None:
    with pytest.raises(SweepInvalid, match="search is no object") as refusal:
        with_settings(BASE | {"search": 3}, {"search.population": 4})

    assert refusal.value.field == "base.search"


RATES = {"training.learning_rate": {"values": [0.1, 0.2]}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"sweep": {}}, "at least 1", id="nothing swept"),
        pytest.param({"sweep": {"seed": {"values": []}}}, "at least 1", id="no values"),
        pytest.param({"sweep": {"seed": {"low": 3, "high": 3}}}, "low below high", id="empty range"),
        pytest.param({"sweep": {"training.ema": {"low": 0, "high": 1, "log": True}}}, "above 0", id="logarithm of nothing"),
        pytest.param({"sweep": RATES, "samples": 2}, "accepted is 1", id="samples of no range"),
        pytest.param({"sweep": {"seed": {"values": [1]}}, "early_stop": {"rule": "asha"}}, "setting of `training`", id="search stopped"),
        pytest.param(
            {"sweep": RATES | {"training.epochs": {"values": [10, 20]}}, "early_stop": {"rule": "asha"}}, "equal length", id="lengths"
        ),
    ],
)
def test_request_that_makes_no_sense_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        StudyRequest.model_validate({"base": BASE} | fields)
