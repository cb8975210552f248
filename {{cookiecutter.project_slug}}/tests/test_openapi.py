"""OpenAPI shows the errors as they are answered."""

from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import BaseModel

from app.errors import Problem
from app.openapi import responses


class Numbers(BaseModel):
    numbers: list[int]


async def test_openapi_shows_every_error_as_a_problem(app: FastAPI) -> None:
    @app.post("/described", responses=responses(404, 418, 503))
    async def describe(body: Numbers, factor: int = 1) -> None: ...

    app.add_api_route("/undescribed", lambda limit=1: None, operation_id="undescribed")
    document = app.openapi()
    answers = {
        (path, method, status): answer
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status, answer in operation["responses"].items()
    }
    by_path = {
        path: [status for found, _, status in answers if found == path]
        for path in ("/described", "/undescribed", "/health/live")
    }
    assert by_path == {
        "/described": ["200", "400", "404", "413", "418", "422", "500", "503"],
        "/undescribed": ["200", "422", "500"],
        "/health/live": ["200", "500"],
    }
    for (*_, status), answer in answers.items():
        if int(status) >= 400:
            ((media_type, content),) = answer["content"].items()
            assert media_type == "application/problem+json"
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert Problem(**content["example"]).status == int(status)
            assert ("Retry-After" in answer.get("headers", {})) == (status == "503")
    schemas = document["components"]["schemas"]
    assert schemas.keys() >= {"Problem", "Fault", "Numbers"}
    assert "ValidationError" not in str(document)
    assert document == app.openapi()


async def test_openapi_describes_what_is_answered(app: FastAPI, client: AsyncClient) -> None:
    """`errors` is there or not, and never null."""

    @app.post("/numbers")
    async def read(body: Numbers) -> None: ...

    @app.get("/bug")
    async def fail() -> None:
        raise KeyError

    schemas = app.openapi()["components"]["schemas"]
    refused = (await client.post("/numbers", json={})).json()
    failed = (await client.get("/bug")).json()
    assert refused.keys() | failed.keys() == schemas["Problem"]["properties"].keys()
    assert refused["errors"][0].keys() == schemas["Fault"]["properties"].keys()
    assert schemas["Problem"]["properties"]["errors"]["type"] == "array"
    assert "errors" not in (await client.get("/nothing")).json()


async def test_an_operation_is_called_like_its_function(app: FastAPI) -> None:
    path = app.openapi()["paths"]["/health/live"]
    assert path["get"]["operationId"] == "live"
