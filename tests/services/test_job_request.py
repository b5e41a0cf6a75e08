"""The typed request: budgets in words, children of a generation, strictness, and the way into glora_core's own settings."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from glora_core.effort import EFFORTS, Effort
from glora_core.errors import ConfigInvalid
from glora_core.finals import FinalsSettings
from glora_core.space import LayerShape
from services.job_request import JobRequest, parse_budget, space_of
from services.job_settings import SearchRequest

SMALLEST = {"backbone": {"name": "vit"}, "data": {"path": "/data"}, "budget": 100}
LAYERS = (LayerShape("qkv", 8, 24),)


def request(**changes: object) -> JobRequest:
    return JobRequest.model_validate(SMALLEST | changes)


@pytest.mark.parametrize(
    ("written", "parameters"),
    [
        (0, 0),
        (100_000, 100_000),
        ("100000", 100_000),
        ("100k", 100_000),
        ("100K", 100_000),
        ("1.5M", 1_500_000),
        ("1.5m", 1_500_000),
        (" 2 k ", 2_000),
        ("0.5k", 500),
        ("0", 0),
    ],
)
def test_budget_may_be_written_as_a_number_or_in_thousands_or_millions(written: object, parameters: int) -> None:
    assert request(budget=written).budget == parameters


@pytest.mark.parametrize("written", ["", "lots", "-5", "1e6", "100kk", "1,000", "k", "1.k", "100 g", -1, 1.5, None, [], math.nan, math.inf])
def test_budget_that_is_no_number_of_parameters_is_refused(written: object) -> None:
    with pytest.raises(ValidationError) as refusal:
        request(budget=written)

    assert [error["loc"] for error in refusal.value.errors()] == [("budget",)]


@given(st.text(max_size=12))
def test_any_text_as_budget_is_a_count_or_a_refusal(written: str) -> None:
    try:
        budget = request(budget=written).budget
    except ValidationError:
        return
    assert budget >= 0


@given(st.integers(0, 10**15))
def test_budget_in_plain_digits_means_exactly_that_number(parameters: int) -> None:
    assert request(budget=str(parameters)).budget == parameters


def test_budget_text_beyond_any_float_is_refused() -> None:
    with pytest.raises(ValidationError):
        request(budget="9" * 400)


def test_large_budget_in_digits_is_not_rounded() -> None:
    assert request(budget="9007199254740993").budget == 9007199254740993


@given(
    population=st.integers(1, 60),
    crossover=st.none() | st.integers(0, 60),
    mutation=st.none() | st.integers(0, 60),
)
def test_children_never_exceed_the_population_and_keep_what_was_asked_for(
    population: int, crossover: int | None, mutation: int | None
) -> None:
    try:
        search = SearchRequest(population=population, crossover=crossover, mutation=mutation)
    except ValidationError:
        assert (crossover or 0) + (mutation or 0) > population
        return

    by_crossover, by_mutation = search.settings().children

    assert by_crossover + by_mutation <= population
    assert by_crossover == crossover or crossover is None
    assert by_mutation == mutation or mutation is None


def test_children_are_half_and_half_where_nothing_is_said() -> None:
    assert SearchRequest(population=50).settings().children == (25, 25)


def test_crossover_and_mutation_beyond_the_population_are_refused_with_the_numbers() -> None:
    with pytest.raises(ValidationError, match=r"crossover 3 and mutation 2 .* the population of 4"):
        request(search={"population": 4, "crossover": 3, "mutation": 2})


@pytest.mark.parametrize(
    ("changes", "location"),
    [
        ({"colour": "blue"}, ("colour",)),
        ({"search": {"populations": 5}}, ("search", "populations")),
        ({"search": {"population": 0}}, ("search", "population")),
        ({"training": {"policy": "greedy"}}, ("training", "policy")),
        ({"training": {"learning_rate": 0}}, ("training", "learning_rate")),
        ({"training": {"warmup": 1}}, ("training", "warmup")),
        ({"space": {"ranks": []}}, ("space", "ranks")),
        ({"space": {"ranks": [0]}}, ("space", "ranks", 0)),
        ({"backbone": {"name": ""}}, ("backbone", "name")),
        ({"seed": 2**63}, ("seed",)),
        ({"name": "n" * 121}, ("name",)),
        ({"backbone": {"name": "n" * 301}}, ("backbone", "name")),
        ({"backbone": {"name": "vit", "weights": "w" * 4097}}, ("backbone", "weights")),
        ({"backbone": {"name": "vit", "layers": ["l" * 201]}}, ("backbone", "layers", 0)),
        ({"data": {"path": "/" + "d" * 4096}}, ("data", "path")),
        ({"data": {"path": ""}}, ("data", "path")),
        ({"data": {"path": "/d", "also_test": {"other": "/" + "d" * 4096}}}, ("data", "also_test", "other")),
        ({"space": {"overrides": [{"layers": "l" * 201}]}}, ("space", "overrides", 0, "layers")),
    ],
)
def test_refused_field_is_named_by_its_place(changes: dict[str, object], location: tuple[object, ...]) -> None:
    with pytest.raises(ValidationError) as refusal:
        request(**changes)

    assert [error["loc"] for error in refusal.value.errors()] == [location]


def test_defaults_are_those_of_the_standard_effort_and_the_papers() -> None:
    asked = request()

    assert asked == request(effort="standard")
    assert (asked.search.parents, asked.search.mutation_probability) == (10, 0.2)
    assert (asked.space.preset, asked.space.ranks) == ("glora", None)


def test_stored_request_is_read_back_equal() -> None:
    asked = request(budget="1.5M", space={"ranks": [2, 4], "choices": {"A": ["none"]}}, search={"population": 7, "crossover": 2}, seed=9)

    assert JobRequest.model_validate(asked.model_dump(mode="json")) == asked


def test_request_cannot_be_changed_after_it_was_checked() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        request().budget = 1  # type: ignore[misc]


def test_space_takes_ranks_and_choices_from_the_request() -> None:
    space = space_of(request(space={"ranks": [2, 1], "choices": {"A": ["vector", "none"], "B": ["lora"]}}), LAYERS)

    assert [choice.code for choice in space.choices[0]["A"]] == ["V", "N"]
    assert [choice.code for choice in space.choices[0]["B"]] == ["L2", "L1"]
    assert [choice.code for choice in space.choices[0]["D"]] == ["V", "S", "N"]


@pytest.mark.parametrize(
    "space",
    [
        {"choices": {"C": ["scalar"]}},
        {"choices": {"E": ["lora"]}},
        {"choices": {"A": []}},
        {"ranks": [4, 4]},
        {"preset": "lora-2", "choices": {"A": ["none"]}},
    ],
)
def test_space_that_no_tensor_can_take_is_refused(space: dict[str, object]) -> None:
    with pytest.raises(ConfigInvalid):
        space_of(request(space=space), LAYERS)


def test_evolution_takes_every_setting_of_the_search() -> None:
    asked = request(
        search={
            "population": 12,
            "generations": 5,
            "parents": 3,
            "crossover": 4,
            "mutation": 6,
            "mutation_probability": 0.5,
            "seed_known_methods": False,
        }
    )

    evolution = asked.search.settings()

    assert (evolution.population, evolution.generations, evolution.parents) == (12, 5, 3)
    assert (evolution.children, evolution.mutation_probability) == ((4, 6), 0.5)
    assert evolution.seed_known_methods is False


@pytest.mark.parametrize("budget", [True, False])
def test_truth_values_are_no_budgets(budget: bool) -> None:
    with pytest.raises(ValueError, match="not numbers of parameters"):
        parse_budget(budget)


@pytest.mark.parametrize("name", list(EFFORTS))
def test_an_effort_says_every_number_that_a_request_leaves_out(name: str) -> None:
    asked, effort = request(effort=name), EFFORTS[name]

    assert (asked.training.epochs, asked.training.learning_rate) == (effort.epochs, effort.learning_rate)
    assert (asked.search.population, asked.search.generations) == (effort.population, effort.generations)
    assert asked.finals.settings(asked.training) == effort.finals_settings


def test_what_is_given_overrides_the_effort_field_by_field() -> None:
    asked = request(effort="thorough", search={"generations": 2}, finals={"candidates": 9, "epochs": None})

    effort = EFFORTS["thorough"]
    assert (asked.search.population, asked.search.generations, asked.training.epochs) == (effort.population, 2, effort.epochs)
    assert asked.finals.settings(asked.training) == replace(effort.finals_settings, candidates=9)


def test_finals_that_are_not_described_follow_the_supernets_training_but_are_never_longer() -> None:
    own = EFFORTS["standard"]

    longer = request(training={"epochs": 100 * own.epochs, "learning_rate": 10 * own.learning_rate})
    shorter = request(training={"epochs": own.epochs // 5})

    found = longer.finals.settings(longer.training)
    assert (found.epochs, found.scratch_epochs) == (own.finals, own.scratch_epochs)
    assert found.learning_rates == pytest.approx([10 * rate for rate in own.learning_rates])
    assert shorter.finals.epochs == [rung // 5 for rung in own.finals]
    assert min(request(training={"epochs": 1}).finals.epochs or ()) == 1


def test_a_stored_request_keeps_its_numbers_whatever_an_effort_means_later(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = request(effort="quick").model_dump(mode="json")
    monkeypatch.setattr("services.job_effort.EFFORTS", {"quick": Effort(1, 2, 3, (4,))})

    assert JobRequest.model_validate(stored).model_dump(mode="json") == stored
    assert request(effort="quick").training.epochs == 1


@pytest.mark.parametrize("effort", ["some", 3, None, ["quick"]])
def test_an_unknown_effort_is_refused(effort: object) -> None:
    with pytest.raises(ValidationError) as refusal:
        request(effort=effort)

    assert [error["loc"] for error in refusal.value.errors()] == [("effort",)]


@pytest.mark.parametrize(("part", "field"), [("training", "epochs"), ("search", "generations"), ("finals", "candidates")])
def test_a_number_that_is_null_is_refused(part: str, field: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        request(**{part: {field: None}})

    assert [error["loc"] for error in refusal.value.errors()] == [(part, field)]


@pytest.mark.parametrize("part", ["training", "search", "finals"])
def test_a_part_that_is_no_object_is_refused_at_its_place(part: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        request(**{part: 3})

    assert [error["loc"] for error in refusal.value.errors()] == [(part,)]


@pytest.mark.parametrize(("said", "rungs"), [(0, ()), ([], ()), (9, (9,)), ([3, 6], (3, 6))], ids=str)
def test_epochs_from_scratch_are_rungs_one_rung_or_none(said: object, rungs: tuple[int, ...]) -> None:
    asked = request(finals={"scratch_epochs": said})

    assert asked.finals.settings(asked.training).scratch_epochs == rungs


def test_finals_take_what_is_asked_for() -> None:
    asked = request(finals={"mode": "winner", "candidates": 2, "learning_rates": [0.1], "epochs": [1, 2, 4], "scratch_epochs": 9})

    assert asked.finals.settings(asked.training) == FinalsSettings("winner", 2, (0.1,), (1, 2, 4), (9,))


@pytest.mark.parametrize(
    ("finals", "place"),
    [
        ({"mode": "some"}, ("mode",)),
        ({"candidates": 0}, ("candidates",)),
        ({"learning_rates": []}, ("learning_rates",)),
        ({"learning_rates": [0.1, 0.0]}, ("learning_rates", 1)),
        ({"learning_rates": [0.1, 0.1]}, ()),
        ({"epochs": [0]}, ("epochs", 0)),
        ({"epochs": 3}, ("epochs",)),
        ({"scratch_epochs": -1}, ("scratch_epochs", 0)),
        ({"scratch_epochs": True}, ("scratch_epochs",)),
        ({"learning_rate": 0.1}, ("learning_rate",)),
    ],
    ids=str,
)
def test_finals_out_of_range_are_refused_at_their_field(finals: object, place: tuple[object, ...]) -> None:
    with pytest.raises(ValidationError) as refusal:
        request(finals=finals)

    assert [error["loc"] for error in refusal.value.errors()] == [("finals", *place)]


def test_processes_hold_a_cpu_or_a_gpu_each_where_nothing_is_said() -> None:
    resources = request().resources

    assert resources.worker.amounts(use_gpu=False) == resources.evaluator.amounts(use_gpu=False) == (1.0, 0.0)
    assert resources.evaluator.amounts(use_gpu=True) == (0.0, 1.0)


def test_evaluators_may_share_a_gpu() -> None:
    asked = request(training={"use_gpu": True}, resources={"evaluator": {"gpus": 0.25, "cpus": 0.5}})

    assert asked.resources.evaluator.amounts(use_gpu=True) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resources": {"evaluator": {"gpus": 0.5}}}, r"resources\.evaluator\.gpus: the job uses no GPU; set training\.use_gpu"),
        (
            {"resources": {"worker": {"gpus": 0.5}}, "training": {"use_gpu": True, "workers": 2}},
            r"resources\.worker\.gpus: 2 training workers",
        ),
        ({"resources": {"worker": {"gpus": 1.5}}, "training": {"use_gpu": True}}, "less than or equal to 1"),
        ({"resources": {"worker": {"cpus": 0}}}, "greater than 0"),
    ],
)
def test_resources_that_cannot_be_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        request(**changes)
