"""What a job's charts are given: losses, probed subnets, and the metric searched for, of generations and candidates."""

import re
from typing import Any

import pytest
from sqlalchemy import update

from glora_core.metrics import UNMEASURED
from services.dashboard import wording
from services.dashboard.charts import LINE_POINTS, ChartData, chart_data
from services.dashboard.routes import static_folder
from services.store import events, jobs
from services.store.database import Database
from services.store.models import Evaluation
from tests.services.api import stock


def charts(database: Database, epochs: list[dict[str, Any]]) -> ChartData:
    """The charts of a running job that has reported so many epochs."""
    lease = stock.add_running(database)
    with jobs.fenced(database, lease) as (session, job):
        for epoch in epochs:
            events.append(session, job.id, "epoch", epoch)
        return chart_data(session, job)


def test_probed_subnets_are_shown_by_epoch(database: Database) -> None:
    first, second = {"smallest": 0.25, "largest": 0.5}, {"smallest": 0.375, "largest": 0.75}
    reports = [{"epoch": i + 1, "loss": 1.0, "probe": {1: first, 3: second}.get(i, {})} for i in range(4)]

    found = charts(database, reports)

    assert [(point.epoch, point.accuracy) for point in found.probes] == [(2, first), (4, second)]
    assert [point.epoch for point in found.epochs] == [1, 2, 3, 4]


def test_probes_of_a_long_training_are_all_shown_though_its_losses_are_thinned(database: Database) -> None:
    reports = [{"epoch": i + 1, "loss": 1.0, "probe": {"largest": 0.5} if i % 101 == 7 else {}} for i in range(700)]

    found = charts(database, reports)

    assert [point.epoch for point in found.probes] == [8, 109, 210, 311, 412, 513, 614]
    assert len(found.epochs) == LINE_POINTS


def test_epochs_reported_before_there_were_probes_have_none(database: Database) -> None:
    assert charts(database, [{"epoch": 1, "loss": 1.0}]).probes == ()


def test_generations_and_candidates_are_shown_by_the_metric_searched_for(database: Database) -> None:
    metric = "MulticlassF1Score"
    lease = stock.add_running(database, search={"metric": metric})
    stock.add_search(database, lease, generations=2, population=3, metric=metric)

    with database.read() as session:
        found = chart_data(session, jobs.get(session, lease.job_id))

    assert [(g.best, g.accuracy) for g in found.generations] == [(0.015, 0.03), (0.02, 0.04)]
    assert [(g.least, g.mean, g.most) for g in found.generations] == [(0.005, 0.01, 0.015), (0.01, 0.015, 0.02)]
    assert [(c.value, c.accuracy) for c in found.candidates[:3]] == [(0.005, 0.01), (0.01, 0.02), (0.015, 0.03)]
    assert found.best is not None and found.best.value == 0.02


def test_a_metric_of_which_less_is_better_is_shown_as_it_is(database: Database) -> None:
    metric = "MulticlassCalibrationError"
    lease = stock.add_running(database, search={"metric": metric})
    stock.add_search(database, lease, generations=1, population=3, metric=metric)

    with database.read() as session:
        found = chart_data(session, jobs.get(session, lease.job_id))

    (generation,) = found.generations
    assert (generation.least, generation.most) == (-0.015, -0.005)
    assert [candidate.value for candidate in found.candidates] == [-0.005, -0.01, -0.015]


def test_a_candidate_without_a_value_of_the_metric_spoils_no_spread(database: Database) -> None:
    metric = "MulticlassF1Score"
    lease = stock.add_running(database, search={"metric": metric})
    stock.add_search(database, lease, generations=1, population=3, metric=metric)
    with database.write() as session:
        session.execute(update(Evaluation).where(Evaluation.accuracy == 0.01).values(fitness=UNMEASURED))

    with database.read() as session:
        found = chart_data(session, jobs.get(session, lease.job_id))

    assert [candidate.value for candidate in found.candidates] == [None, 0.01, 0.015]
    assert (found.generations[0].least, found.generations[0].most) == (0.01, 0.015)


def test_generations_of_a_long_search_are_thinned_with_the_first_and_the_last(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.dashboard.charts.LINE_POINTS", 3)
    lease = stock.add_running(database)
    stock.add_search(database, lease, generations=9, population=2)

    with database.read() as session:
        found = chart_data(session, jobs.get(session, lease.job_id))

    assert [(point.number, point.least, point.most) for point in found.generations] == [(0, 0.01, 0.02), (4, 0.05, 0.06), (8, 0.09, 0.1)]
    assert found.total == 18 and found.best is not None and found.best.accuracy == 0.1


def test_the_page_listens_for_every_kind_of_event() -> None:
    script = (static_folder / "stream.js").read_text()

    assert set(re.findall(r'^  "(\w+)",$', script, flags=re.MULTILINE)) == set(wording._TITLES)
