"""The example feature: every value and id that is refused, and its part of OpenAPI."""

import json

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response

BIGINT_MAX = 2**63 - 1
# For a body that httpx would not encode: json.dumps() escapes a lone surrogate.
JSON = {"content-type": "application/json"}
WRONG_BODIES = [
    ({"name": ""}, "body.name"),
    ({"name": "x" * 201}, "body.name"),
    ({"name": None}, "body.name"),
    ({"name": 1}, "body.name"),
    ({"name": ["pen"]}, "body.name"),
    ({"name": "NUL \0"}, "body.name"),
    ({"name": "lone surrogate \ud800"}, "body.name"),
    ({"name": "pen", "description": "x" * 10_001}, "body.description"),
    ({"name": "pen", "description": 10**400}, "body.description"),
    ({"name": "pen", "description": "NUL \0"}, "body.description"),
    ({"name": "pen", "description": "lone surrogate \udfff"}, "body.description"),
    ([{"name": "pen"}], "body"),
    ("pen", "body"),
    (None, "body"),
]
NOT_NUMBERS = ["x", "1.5", "1e3", "-1", str(BIGINT_MAX + 1), "9" * 5000, "%00", "%FF", "%ED%A0%80"]


def assert_problem(response: Response, status: int) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["status"]) == (status, status)


async def create(client: AsyncClient, **values: str) -> str:
    """Create an item and return its path."""
    response = await client.post("/items", json=values)
    assert response.status_code == 201
    return f"/items/{response.json()['id']}"


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize(("body", "location"), WRONG_BODIES)
async def test_wrong_body_is_422_and_changes_nothing(
    client: AsyncClient, method: str, body: object, location: str
) -> None:
    path = await create(client, name="pencil")
    before = (await client.get("/items")).json()
    response = await client.request(
        method, path if method == "PATCH" else "/items", content=json.dumps(body), headers=JSON
    )
    assert_problem(response, 422)
    assert [error["location"] for error in response.json()["errors"]] == [location]
    assert (await client.get("/items")).json() == before


async def test_missing_name_is_described(client: AsyncClient) -> None:
    response = await client.post("/items", json={"description": "nameless"})
    assert_problem(response, 422)
    assert response.json()["errors"] == [{"location": "body.name", "detail": "Field required"}]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_largest_id_is_404(client: AsyncClient, method: str) -> None:
    response = await client.request(method, f"/items/{BIGINT_MAX}", json={})
    assert_problem(response, 404)
    assert response.json()["detail"] == f"There is no item {BIGINT_MAX}."


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("item_id", ["0", *NOT_NUMBERS])
async def test_wrong_id_is_422(client: AsyncClient, method: str, item_id: str) -> None:
    response = await client.request(method, f"/items/{item_id}", json={})
    assert_problem(response, 422)
    assert [error["location"] for error in response.json()["errors"]] == ["path.item_id"]


@pytest.mark.parametrize("value", ["", *NOT_NUMBERS])
@pytest.mark.parametrize("parameter", ["limit", "after"])
async def test_wrong_query_is_422(client: AsyncClient, parameter: str, value: str) -> None:
    response = await client.get(f"/items?{parameter}={value}")
    assert_problem(response, 422)
    assert [error["location"] for error in response.json()["errors"]] == [f"query.{parameter}"]


async def test_largest_cursor_is_accepted(client: AsyncClient) -> None:
    response = await client.get(f"/items?after={BIGINT_MAX}&limit=1")
    assert (response.status_code, response.json()) == (200, {"items": [], "next": None})


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_items_are_503_while_the_database_is_down(
    client_without_database: AsyncClient, method: str
) -> None:
    response = await client_without_database.request(method, "/items", json={"name": "pen"})
    assert_problem(response, 503)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT"])
async def test_wrong_method_is_405_with_the_allowed_ones(client: AsyncClient, method: str) -> None:
    for path, allowed in [("/items", "GET, POST"), ("/items/1", "DELETE, GET, PATCH")]:
        response = await client.request(method, path)
        assert (response.status_code, response.headers["allow"]) == (405, allowed)


async def test_openapi_has_the_largest_id(app: FastAPI) -> None:
    """Its numbers are floats, and the largest bigint is not exact as one."""
    parameter, *_ = app.openapi()["paths"]["/items/{item_id}"]["get"]["parameters"]
    assert "maximum" not in parameter["schema"]
    assert int(parameter["schema"]["exclusiveMaximum"]) == BIGINT_MAX + 1


async def test_openapi_has_examples_that_work(client: AsyncClient, app: FastAPI) -> None:
    schema = app.openapi()["components"]["schemas"]["ItemCreate"]
    name = schema["properties"]["name"]["examples"][0]
    description = schema["properties"]["description"]["anyOf"][0]["examples"][0]
    await create(client, name=name, description=description)
