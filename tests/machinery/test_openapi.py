"""OpenAPI: the project, the ids of operations, and errors as they are answered."""

import tomllib

import pytest
from fastapi import APIRouter, FastAPI
from httpx import AsyncClient
from pydantic import BaseModel

from app.database import ROOT
from app.web.openapi import responses
from app.web.problems import Problem


class Numbers(BaseModel):
    numbers: list[int]


async def test_openapi_has_the_name_of_the_project(app: FastAPI) -> None:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = app.openapi()["info"]
    assert (info["title"], info["version"]) == (about["name"], about["version"])
    assert info["description"] == about["description"]


async def test_every_error_is_a_problem(app: FastAPI) -> None:
    @app.post("/described", responses=responses(404, 418, 503))
    async def describe(body: Numbers, factor: int = 1) -> None: ...

    app.add_api_route("/undescribed", lambda limit=1: None, operation_id="undescribed")
    document = app.openapi()
    found = {
        (path, method, status): response
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status, response in operation["responses"].items()
    }
    by_path = {
        path: [status for other, _, status in found if other == path]
        for path in ("/described", "/undescribed", "/health/live")
    }
    assert by_path == {
        "/described": ["200", "400", "404", "413", "418", "422", "500", "503"],
        "/undescribed": ["200", "422", "500"],
        "/health/live": ["200", "500"],
    }
    for (*_, status), response in found.items():
        assert response["description"]
        if status == "413":
            assert "content" not in response  # FastAPI answers it with plain text
        elif status >= "400":
            ((media_type, content),) = response["content"].items()
            assert media_type == "application/problem+json"
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert Problem(**content["example"]).status == int(status)
            assert ("Retry-After" in response.get("headers", {})) == (status == "503")
    schemas = document["components"]["schemas"]
    assert schemas.keys() >= {"Problem", "FieldError", "Numbers"}
    assert "ValidationError" not in str(document)
    assert document == app.openapi()


@pytest.mark.parametrize("status", [409, 422])
def test_example_of_a_wrong_value_names_it(status: int) -> None:
    (response,) = responses(status).values()
    example = response["content"]["application/problem+json"]["example"]
    assert example["errors"][0]["location"] == "body.name"


async def test_openapi_describes_the_answered_errors(app: FastAPI, client: AsyncClient) -> None:
    """`errors` and `request_id` are there or not, and never null."""

    @app.post("/numbers")
    async def read(body: Numbers) -> None: ...

    @app.get("/bug")
    async def fail() -> None:
        raise KeyError

    schemas = app.openapi()["components"]["schemas"]
    refused = (await client.post("/numbers", json={})).json()
    failed = (await client.get("/bug")).json()
    assert refused.keys() | failed.keys() == schemas["Problem"]["properties"].keys()
    assert refused["errors"][0].keys() == schemas["FieldError"]["properties"].keys()
    assert schemas["Problem"]["properties"]["errors"]["type"] == "array"
    assert set(schemas["Problem"]["required"]) >= {"title", "status", "detail"}
    assert "errors" not in (await client.get("/nothing")).json()


async def test_operation_id_is_feature_and_function(app: FastAPI) -> None:
    """Features may repeat the name of a function."""
    for feature in ("one", "two"):
        router = APIRouter(prefix=f"/{feature}", tags=[feature, "more"])
        router.add_api_route("", lambda: None, name="create")
        app.include_router(router)
    app.add_api_route("/three", lambda: None, name="untagged")
    paths = app.openapi()["paths"]
    ids = [paths[path]["get"]["operationId"] for path in ("/one", "/two", "/three")]
    assert ids == ["one_create", "two_create", "untagged"]
    assert paths["/health/live"]["get"]["operationId"] == "health_live"
