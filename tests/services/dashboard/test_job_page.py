"""A job's page as served: what it says of the data, and of what came out."""

import html
import re
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from services.store import events, jobs
from services.store.blobs import BlobStore
from services.store.database import Database
from services.store.models import JobEvent
from tests.services.api import stock

GROWN = {"inherited_generations": 1, "generations": 3}


@pytest.fixture
def submitted(http: TestClient, data: Path, backbone: str) -> str:
    """Path of the page of a job whose val split shares images with train and lacks a class."""
    for image in (data / "val" / "tulip").iterdir():
        image.unlink()
    return f"/jobs/{http.post('/v1/jobs', json=stock.body(data)).json()['id']}"


def test_page_warns_of_what_is_odd_about_the_data(http: TestClient, submitted: str) -> None:
    page = html.unescape(http.get(submitted).text)

    assert "<li>2 val images are in train too, byte for byte" in page
    assert "<li>val has no images of 1 of 2 classes: tulip</li>" in page


def test_page_counts_the_images_of_each_class_by_split(http: TestClient, submitted: str) -> None:
    page = http.get(submitted).text

    assert '<tr><th scope="row">tulip</th><td class="number">2</td><td class="number">0</td></tr>' in page


def test_page_of_a_job_whose_data_was_not_counted_goes_without(http: TestClient, database: Database) -> None:
    assert "Images per class" not in http.get(f"/jobs/{stock.add_job(database)}").text


def test_page_shows_the_winner_and_its_baselines_on_further_test_sets(
    http: TestClient, database: Database, blobs: BlobStore, tmp_path: Path
) -> None:
    page = http.get(f"/jobs/{stock.add_finished(database, blobs, tmp_path / 'made')}").text

    assert "<div><b>43.8%</b><span>on sketch, 16 images</span></div>" in page
    assert page.count('<th scope="col" class="number">On sketch</th>') == 1
    assert page.count('<td class="number">43.8%</td>') == 2


def test_page_tells_how_each_finalist_was_trained(http: TestClient, database: Database, blobs: BlobStore, tmp_path: Path) -> None:
    page = http.get(f"/jobs/{stock.add_finished(database, blobs, tmp_path / 'made')}").text

    assert "Winner: Search #1, rate 0.003." in page
    assert "<td>45 epochs from the supernet</td>" in page
    assert "LoRA, rate 0.003" in page and "<td>60 epochs from scratch</td>" in page


def test_page_of_a_job_that_waits_for_room_says_so_until_it_has_found_some(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    words = "the job asks for 1 evaluator with 1 CPU each, and 0 CPUs of the cluster are free"

    def tell(kind: str, **told: str) -> str:
        with jobs.fenced(database, lease) as (session, job):
            events.append(session, job.id, kind, told)
        return http.get(f"/jobs/{lease.job_id}").text

    assert f"waiting for room: {words}" in tell("room_awaited", message=words)
    assert "waiting for room" not in tell("room_found")


def test_page_counts_the_finals_of_all_rungs_while_they_go_on(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.emit(database, lease, "finals")
    stock.add_finals(database, lease)

    page = http.get(f"/jobs/{lease.job_id}").text

    assert "finalist 2 of 3" in page
    assert "<td>15 epochs from the supernet</td>" in page
    assert "LoRA, rate 0.003: training loss became nan" in page


def test_rest_of_the_finals_is_told_by_the_time_since_they_began_since_trials_side_by_side_report_together(
    http: TestClient, database: Database
) -> None:
    lease = stock.add_running(database)
    stock.emit(database, lease, "finals")
    stock.add_finals(database, lease)
    with database.write() as session:
        began = select(JobEvent).where(JobEvent.job_id == lease.job_id, JobEvent.kind == "finals")
        session.scalars(began).one().at -= timedelta(minutes=20)

    assert "about 10 min left in this phase" in http.get(f"/jobs/{lease.job_id}").text


def test_page_of_a_soup_names_its_members_and_how_the_budget_is_counted(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.succeed(database, lease, stock.SOUP_RESULT)

    page = " ".join(html.unescape(http.get(f"/jobs/{lease.job_id}").text).split())

    assert "Winner: Soup of 2 finalists." in page
    assert "<b>1,240</b><span>trainable parameters in all, each of 2 subnets within the budget of 700</span>" in page
    members = page.partition('aria-label="Members of the soup"')[2].partition("</table>")[0]
    assert "Search #1, rate 0.003" in members and "Search #2, rate 0.003" in members
    finalists = page.partition('aria-label="Finalists, best first"')[2].partition("</table>")[0]
    assert finalists.count('<span class="tag">in the soup</span>') == 2
    assert finalists.count('<span class="tag">winner</span>') == 1
    assert "The choices of the soup’s first member by layer" in page


def test_page_tells_of_a_soup_that_was_no_better(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    with database.write() as session:
        events.append(session, lease.job_id, "soup", {"asked": ["s", "t"], "members": ["s"], "finalists": [{"source": "search #1"}]})

    assert "no average of 2 finalists is better on val than the best of them" in http.get(f"/jobs/{lease.job_id}").text


def test_page_of_one_trained_on_val_too_tells_both_figures(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    stock.succeed(database, lease, stock.AGAIN_RESULT)

    page = " ".join(html.unescape(http.get(f"/jobs/{lease.job_id}").text).split())

    assert "<b>84.4%</b><span>test accuracy as exported, trained on train+val</span>" in page
    assert "<b>81.2%</b><span>test accuracy before</span>" in page
    assert "<b>50.0%</b><span>on sketch as exported</span>" in page
    assert "on train and val together, 90 images" in page


def test_page_tells_baselines_of_the_supernet_from_those_trained_alone(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    alone = stock.RESULT["baselines"][0]
    inside = {key: value for key, value in alone.items() if key not in ("start", "rung", "epochs", "learning_rate")} | {"supernet": "n"}
    searched = inside | {"source": "search", "hash": "w", "config": stock.RESULT["winner"]["config"]}
    stock.succeed(database, lease, stock.RESULT | {"winner": searched, "finalists": [], "baselines": [inside, alone]})

    page = http.get(f"/jobs/{lease.job_id}").text
    table = page.partition('aria-label="Winner and baselines"')[2].partition("</table>")[0]

    assert table.count('<th scope="row">LoRA') == 2
    assert table.count("<td>as in the supernet</td>") == 2
    assert table.count("<td>60 epochs from scratch</td>") == 1


def offered(page: str) -> list[str]:
    """The names of the actions that a page's buttons stand for."""
    return re.findall(r'data-action="(\w+)"', page)


def test_page_offers_what_the_jobs_state_allows(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database)
    path = f"/jobs/{lease.job_id}"
    running = http.get(path).text
    stock.add_search(database, lease, generations=1, population=2)
    http.post(f"/v1{path}/pause")
    pausing = http.get(f"{path}/live").text
    with jobs.fenced(database, lease) as (session, job):
        jobs.paused(session, job)
    paused = http.get(path).text
    http.post(f"/v1{path}/cancel")

    assert offered(running) == ["pause", "clone", "cancel"]
    assert offered(pausing) == ["pause", "resume", "fork", "clone", "cancel"]
    assert "pausing…" in pausing
    assert offered(paused) == ["resume", "fork", "clone", "cancel"]
    assert offered(http.get(path).text) == ["fork", "clone", "delete"]


def test_pages_of_parent_and_child_name_each_other(http: TestClient, database: Database) -> None:
    lease = stock.add_running(database, search={"generations": 1})
    stock.add_search(database, lease, generations=1, population=2)
    stock.succeed(database, lease)
    child = http.post(f"/v1/jobs/{lease.job_id}/extend", json={"generations": 2}).json()["id"]
    taken = stock.claim(database)
    stock.succeed(database, taken, stock.RESULT | {"made_from": {"job": lease.job_id, "action": "extend"} | GROWN})

    parents, childs = (http.get(f"/jobs/{job}").text for job in (lease.job_id, child))

    assert f'<a href="/jobs/{child}">{child}</a> (extend)' in parents
    assert offered(parents)[0] == "extend"
    assert f'<a id="origin" href="/jobs/{lease.job_id}">{lease.job_id}</a>, extend after 1 generations' in childs
    assert "0 asked for, 0 answered from the cache, 0 evaluated; 2 taken over" in childs
    assert "2 asked for, 0 answered from the cache, 2 evaluated</dd>" in parents
    assert f"The search went on from generation 1 of job {lease.job_id} to 3." in childs
