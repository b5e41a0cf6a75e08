"""The OpenAPI document: FastAPI's own, with errors described as what is really sent, problem documents."""

from typing import Any

from fastapi import FastAPI

from services.api.problems import MEDIA_TYPE, ProblemDocument

_BEARER = {"type": "http", "scheme": "bearer", "description": "A user's token; see *Users and the queue* in docs/operations.md."}
_EVERYWHERE = {"401": "No token, or one that nobody has."}
_WITH_BODY = {"413": "The body is larger than any request."}
_REF = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}


def document_problems(app: FastAPI) -> None:
    """Make the application's OpenAPI document give every error response as a problem document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schema["components"]["securitySchemes"] = {"bearer": _BEARER}
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    if path.startswith("/v1/"):
                        operation["security"] = [{"bearer": []}]
                        refused = _EVERYWHERE | (_WITH_BODY if "requestBody" in operation else {})
                        operation["responses"] |= {status: {"description": why} for status, why in refused.items()}
                    _describe_errors(operation["responses"])
            for unused in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]


def _describe_errors(responses: dict[str, Any]) -> None:
    for status, response in responses.items():
        if status >= "400":
            response["content"] = {MEDIA_TYPE: {"schema": _REF}}
