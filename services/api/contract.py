"""The OpenAPI document: FastAPI's own, with errors described as what is really sent, problem documents."""

from typing import Any

from fastapi import FastAPI

from services.api.problems import MEDIA_TYPE, ProblemDocument

_REF = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}


def document_problems(app: FastAPI) -> None:
    """Make the application's OpenAPI document give every error response as a problem document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            for operations in schema["paths"].values():
                for operation in operations.values():
                    _describe_errors(operation["responses"])
            for unused in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]


def _describe_errors(responses: dict[str, Any]) -> None:
    for status, response in responses.items():
        if status >= "400":
            response["content"] = {MEDIA_TYPE: {"schema": _REF}}
