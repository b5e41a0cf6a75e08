"""What a job is expected to take: lines through what was measured, the work of each phase, and how it is put in words."""

from dataclasses import replace

import pytest

from glora_core.expected import PROBED, START, TAUGHT, Line, Speed, Work, about, expected, in_words
from glora_core.finals import FinalsSettings
from glora_core.search import SearchSettings
from glora_core.training import TrainingSettings

SPEED = Speed(step=Line(0.0, 0.01), score=Line(0.0, 0.001))
WORK = Work(
    training=TrainingSettings(epochs=10, batch_size=50, policy="sandwich"),
    search=SearchSettings(population=10, generations=4),
    finals=FinalsSettings("thorough", 3, (1e-3, 3e-3), (5, 10), (), teachers=0),
    train=100,
    val=200,
    test=1000,
    known=0,
    workers=1,
    evaluators=2,
    slots=2,
)


@pytest.mark.parametrize(
    ("few", "more", "line"),
    [
        ((4, 2.0), None, Line(0.0, 0.5)),
        ((4, 2.0), (16, 5.0), Line(1.0, 0.25)),
        ((4, 2.0), (16, 1.0), Line(2.0, 0.0)),
        ((4, 1.0), (16, 8.0), Line(0.0, 0.5)),
        ((4, 2.0), (4, 3.0), Line(0.0, 0.5)),
    ],
    ids=["one", "two", "falling", "rising faster than it can", "the same twice"],
)
def test_a_line_has_no_part_below_zero(few, more, line):
    assert Line.through(few, more) == line


def test_the_phases_of_a_job_are_the_work_that_its_settings_ask_for():
    found = expected(WORK, SPEED)
    assert found["supernet"] == pytest.approx(START + PROBED * 0.1 + 10 * 100 * 0.01)
    assert found["search"] == pytest.approx(START + 4 * 5 * 0.2)
    # six trials of 5 epochs on two processes, then three of 10; a subnet alone costs half a sandwich
    first, second = 5 * 100 * 0.005 + 0.2, 10 * 100 * 0.005 + 0.2
    assert found["finals"] == pytest.approx(2 * START + 3 * first + 2 * second)
    assert found["export"] == pytest.approx(START + 1.0)
    taught = expected(replace(WORK, finals=replace(WORK.finals, teachers=1)), SPEED)
    assert taught["finals"] == pytest.approx(2 * START + TAUGHT * 3 * first + 2 * second)


@pytest.mark.parametrize(
    ("changes", "phase", "more"),
    [
        ({"workers": 2}, "supernet", False),
        ({"training": replace(WORK.training, epochs=20)}, "supernet", True),
        ({"training": replace(WORK.training, batch_size=10)}, "supernet", True),
        ({"evaluators": 1}, "search", True),
        ({"search": replace(WORK.search, generations=5)}, "search", True),
        ({"slots": 6}, "finals", False),
        ({"known": 4, "finals": replace(WORK.finals, scratch_epochs=(10,))}, "finals", True),
        ({"finals": replace(WORK.finals, mode="winner")}, "finals", False),
        ({"retrained": True}, "finals", True),
        ({"scored": 4}, "export", True),
    ],
)
def test_more_work_takes_longer_and_more_processes_less(changes, phase, more):
    speed = Speed(Line(0.001, 0.01), SPEED.score)
    before, after = expected(WORK, speed), expected(replace(WORK, **changes), speed)
    assert after[phase] != before[phase]
    assert (after[phase] > before[phase]) == more


def test_finals_that_are_off_take_no_time():
    assert expected(replace(WORK, finals=replace(WORK.finals, mode="off")), SPEED)["finals"] == 0.0


def test_a_speed_is_read_back_from_its_plain_form():
    speed = Speed(Line(0.1, 0.2), Line(0.3, 0.4))
    assert Speed.from_dict(speed.to_dict()) == speed


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ({"supernet": 300, "search": 120, "finals": 290, "export": 8}, "about 12 min (supernet 5, search 2, finals 5)"),
        ({"supernet": 20, "search": 0, "finals": 31, "export": 5}, "about 56 s (supernet 20, finals 31, export 5)"),
        ({"supernet": 5400, "search": 1800, "finals": 3600, "export": 60}, "about 3.0 h (supernet 1.5, search 0.5, finals 1.0)"),
        ({"supernet": 0.0}, "about 0 s"),
    ],
)
def test_it_is_told_in_one_unit(phases, words):
    assert in_words(phases) == words
    assert words.startswith(about(sum(phases.values())))
