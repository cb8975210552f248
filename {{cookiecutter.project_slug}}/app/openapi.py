"""What OpenAPI says of errors: all that can be answered, as it is answered."""

from functools import partial
from http.client import responses as phrases
from itertools import chain
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from app.errors import INVALID, MEDIA_TYPE, UNEXPECTED, Fault, Problem, problem_body
from app.sqlstates import TIMED_OUT, UNAVAILABLE

SCHEMAS = "#/components/schemas/"

TAKEN = "Another one has this name."
EXAMPLES: dict[int, tuple[Any, ...]] = {
    400: ("There was an error parsing the body",),
    404: ("There is nothing with this id.",),
    409: (TAKEN, [Fault(location="body.name", detail=TAKEN)]),
    413: ("Content Too Large",),
    422: (INVALID, [Fault(location="body.name", detail="Field required")]),
    500: (UNEXPECTED, [], "2f1c7a0e9d5b4c3f8e6a1b0d9c8f7e6d"),
    503: (UNAVAILABLE,),
    504: (TIMED_OUT,),
}


def install(app: FastAPI) -> None:
    """Have `/openapi.json` and `/docs` show every error as a Problem."""
    app.openapi = partial(describe, app)  # type: ignore[method-assign]


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the errors that a route can answer.

    `describe` adds those that come with every route, every input and every body.
    """
    return {str(status): describe_response(status) for status in statuses}


def describe_response(status: int) -> dict[str, Any]:
    example = problem_body(status, *EXAMPLES.get(status, [phrases[status]]))
    content = {"schema": {"$ref": SCHEMAS + "Problem"}, "example": example}
    described = {"description": phrases[status], "content": {MEDIA_TYPE: content}}
    if status == 503:
        described["headers"] = {"Retry-After": {"required": True, "schema": {"type": "integer"}}}
    return described


def describe(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description of the API, with the errors as they are answered here."""
    document = FastAPI.openapi(app)
    for operation in chain.from_iterable(path.values() for path in document["paths"].values()):
        found = operation["responses"]
        of_body = [400, 413] if "requestBody" in operation else []
        of_input = [422] if "422" in found else []
        found |= responses(500, *of_body, *of_input)
        operation["responses"] = dict(sorted(found.items()))
    _, errors = models_json_schema([(Problem, "serialization")], ref_template=SCHEMAS + "{model}")
    schemas = document["components"]["schemas"]
    schemas |= errors["$defs"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document
