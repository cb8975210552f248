"""OpenAPI: the project's name, the ids of operations, and the error responses."""

import tomllib
from http.client import responses as phrases
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from app.database import ROOT
from app.web.problems import MEDIA_TYPE, Problem

SCHEMAS = "#/components/schemas/"


def about_project() -> dict[str, str]:
    """Return title, version and description, as pyproject.toml has them."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"title": about["name"], **{key: about[key] for key in ("version", "description")}}


def operation_id(route: APIRoute) -> str:
    """Return feature and function, `items_create`: features may repeat a function's name."""
    return "_".join([*map(str, route.tags[:1]), route.name])


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors of a route, for its `responses`. `describe` adds 400, 413, 422, 500."""
    return {str(status): describe_response(status) for status in statuses}


def describe_response(status: int) -> dict[str, Any]:
    title = phrases[status]
    example: dict[str, Any] = {"title": title, "status": status, "detail": title}
    if status in {409, 422}:
        example["errors"] = [{"location": "body.name", "detail": title}]
    content = {"schema": {"$ref": SCHEMAS + "Problem"}, "example": example}
    described = {"description": title, "content": {MEDIA_TYPE: content}}
    if status == 503:
        described["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return described


def describe(app: FastAPI) -> dict[str, Any]:
    """Return FastAPI's document with 400, 413, 422 and 500 too, and each but 413 as a Problem."""
    document = FastAPI.openapi(app)
    for operation in [item for path in document["paths"].values() for item in path.values()]:
        found = operation["responses"] | responses(500)
        if "422" in found:
            found |= responses(422)
        if "requestBody" in operation:
            found |= responses(400) | {"413": {"description": phrases[413]}}
        operation["responses"] = dict(sorted(found.items()))
    _, errors = models_json_schema([(Problem, "serialization")], ref_template=SCHEMAS + "{model}")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= errors["$defs"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document
