"""What no request may be: too large, addressed with a zero byte, or carrying control characters."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from services.api.limits import MAX_BODY


def test_body_larger_than_any_job_request_is_refused_unread(http: TestClient) -> None:
    response = http.post("/v1/jobs", content=b"x" * (MAX_BODY + 1))

    assert (response.status_code, response.json()["type"]) == (413, "urn:glora:problem:request-too-large")


def test_large_body_that_does_not_tell_its_length_is_refused(http: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(1 + MAX_BODY // 65536):
            yield b" " * 65536

    response = http.post("/v1/jobs", content=chunks(), headers={"Content-Type": "application/json"})

    assert (response.status_code, response.json()["type"]) == (413, "urn:glora:problem:request-too-large")


@pytest.mark.parametrize("path", ["/v1/jobs/%00", "/v1/jobs/a%00b/events", "/v1/jobs?cursor=%00", "/?before=%00", "/v1/artifacts/%00"])
def test_address_with_a_zero_byte_names_nothing(path: str, http: TestClient) -> None:
    assert http.get(path).status_code == 404


@pytest.mark.parametrize("field", ["name", "data.path", "backbone.name", "backbone.weights"])
def test_control_characters_are_refused_by_their_field(field: str, http: TestClient) -> None:
    request: dict[str, Any] = {"name": "n", "backbone": {"name": "b", "weights": "w"}, "data": {"path": "/d"}, "budget": 1}
    part, _, leaf = field.rpartition(".")
    (request[part] if part else request)[leaf] = "a\x1b[31m\0"

    response = http.post("/v1/jobs", json=request)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_refusal_does_not_send_a_long_input_back(http: TestClient) -> None:
    response = http.post("/v1/jobs", json={f"unknown{i}": "x" * 1000 for i in range(500)})

    assert response.status_code == 422
    assert len(response.content) < 40_000
