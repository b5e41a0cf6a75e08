"""The dashboard's pages as they are served: which figures of a job they show."""

from starlette.testclient import TestClient

from services.store.database import Database
from services.store.events import append
from services.store.jobs import fenced
from tests.services.api import stock

METRIC = "MulticlassF1Score"


def test_page_of_a_search_for_another_metric_shows_it_beside_accuracy(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database, search={"metric": METRIC})
    stock.add_search(database, lease, generations=2, population=3, metric=METRIC)
    stock.succeed(database, lease, stock.F1_RESULT)

    page = http.get(f"/jobs/{lease.job_id}").text

    for shown in ("<b>81.2%</b><span>test accuracy", "<b>56.2%</b><span>test macro accuracy", f"<b>0.6562</b><span>test {METRIC}"):
        assert shown in page
    for shown in ("<b>87.5%</b><span>val accuracy", "<b>62.5%</b><span>val macro accuracy", f"<b>0.7188</b><span>val {METRIC}"):
        assert shown in page
    assert f'<th scope="col" class="number">Val {METRIC}</th>' in page
    assert "best so far 4.0% (fitness 0.02)" in page
    assert f"for {METRIC}" in page


def test_page_of_a_job_of_before_there_was_a_choice_still_shows_its_result(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.succeed(database, lease)

    page = http.get(f"/jobs/{lease.job_id}").text

    assert "<b>87.5%</b><span>val accuracy" in page
    assert "<span>val macro accuracy" not in page
    assert METRIC not in page


def test_finalists_of_a_running_job_are_in_the_order_of_their_fitness(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database, search={"metric": METRIC})
    for source, accuracy, fitness in (("lora", 0.9, 0.25), ("ssf", 0.5, 0.75)):
        with fenced(database, lease) as (session, job):
            data = {"source": source, "parameters": 5, "accuracy": accuracy, "macro_accuracy": 0.5, "fitness": fitness, "loss": 1.0}
            append(session, job.id, "finalist", data)

    page = http.get(f"/jobs/{lease.job_id}/live").text

    table = page[page.index("<table") : page.index("</table")]
    assert 0 < table.index("SSF") < table.index("LoRA")
    assert f"Val {METRIC}" in table and "0.75" in table


def test_list_shows_the_accuracy_of_the_best_as_of_the_last_generation(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.add_search(database, lease, generations=3, population=2)

    assert "4.0%" in http.get("/").text
