"""The contract: complete, described, valid, and written down in docs/openapi.json."""

import runpy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

ROOT = Path(__file__).parents[3]
METHODS = ("get", "put", "post", "delete", "options", "head", "patch")

pytestmark = pytest.mark.filterwarnings("ignore:Duplicate Operation ID")


@pytest.fixture
def document(http: TestClient) -> dict[str, Any]:
    return http.get("/openapi.json").json()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every operation by method and path."""
    return {f"{method} {path}": item[method] for path, item in document["paths"].items() for method in METHODS if method in item}


def parts_of_the_request(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """JobRequest's own schema and those that it refers to, by name."""
    schemas, found, waiting = document["components"]["schemas"], {}, ["JobRequest"]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = schemas[name]
            references = [field["$ref"] for field in schemas[name]["properties"].values() if "$ref" in field]
            waiting += [reference.rpartition("/")[2] for reference in references]
    return found


def test_every_operation_has_a_summary_a_description_and_a_tag(document: dict[str, Any]) -> None:
    bare = {
        name: [part for part in ("summary", "description", "tags") if not operation.get(part)]
        for name, operation in operations(document).items()
    }

    assert len(bare) >= 12
    assert {name: missing for name, missing in bare.items() if missing} == {}


def test_every_field_of_a_request_is_described(document: dict[str, Any]) -> None:
    parts = parts_of_the_request(document)

    bare = [
        f"{part}.{name}"
        for part, schema in parts.items()
        for name, field in schema["properties"].items()
        if not (field.get("description") or parts.get(field.get("$ref", "").rpartition("/")[2], {}).get("description"))
    ]

    assert set(parts) >= {
        "JobRequest",
        "BackboneRequest",
        "DataRequest",
        "SpaceRequest",
        "TrainingRequest",
        "SearchRequest",
        "FinalsRequest",
    }
    assert bare == []


def test_every_parameter_is_described_or_part_of_the_path(document: dict[str, Any]) -> None:
    bare = [
        f"{name} {parameter['name']}"
        for name, operation in operations(document).items()
        for parameter in operation.get("parameters", [])
        if parameter["in"] != "path" and not parameter.get("description")
    ]

    assert bare == []


def test_unknown_fields_are_refused_by_the_schema_too(document: dict[str, Any]) -> None:
    loose = [name for name, schema in parts_of_the_request(document).items() if schema.get("additionalProperties") is not False]

    assert loose == []


def test_refusals_are_documented_as_problem_documents(document: dict[str, Any]) -> None:
    refusal = operations(document)["post /v1/jobs"]["responses"]["422"]["content"]["application/problem+json"]["schema"]

    assert refusal == {"$ref": "#/components/schemas/ProblemDocument"}


def test_written_contract_is_up_to_date() -> None:
    current = runpy.run_path(str(ROOT / "tools" / "export_openapi.py"))["document"]()

    written = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")

    assert written == current, "run: python tools/export_openapi.py"


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(document).values()]

    assert len(ids) == len(set(ids))


def test_example_request_is_valid_by_its_own_schema(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["JobRequest"]

    jsonschema.Draft202012Validator(schema | {"components": document["components"]}).validate(schema["examples"][0])


def test_smallest_budget_is_part_of_the_schema(document: dict[str, Any]) -> None:
    assert document["components"]["schemas"]["JobRequest"]["properties"]["budget"]["anyOf"][0]["minimum"] == 0


def test_problems_are_documented_with_the_media_type_they_are_sent_with(document: dict[str, Any]) -> None:
    assert list(operations(document)["post /v1/jobs"]["responses"]["422"]["content"]) == ["application/problem+json"]


def test_unavailability_is_documented(document: dict[str, Any], app: FastAPI) -> None:
    known = operations(document)

    assert "503" in known["post /v1/jobs"]["responses"]
    assert "503" in known["get /v1/artifacts/{artifact_id}/content"]["responses"]


def test_calls_say_that_they_take_a_token_and_what_is_answered_without(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for name, operation in operations(document).items():
        inside = " /v1/" in name
        assert ("security" in operation, "401" in operation["responses"]) == (inside, inside)
        assert ("413" in operation["responses"]) == ("requestBody" in operation)
