"""A job's page as served: what it says of the data, and of what came out."""

import html
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from services.store.database import Database
from tests.services.api import stock


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
