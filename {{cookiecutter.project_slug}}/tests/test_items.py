import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models.item import Item

BIGINT_MAX = 2**63 - 1
# For a body that httpx would not encode: json.dumps() escapes a lone surrogate.
JSON = {"content-type": "application/json"}


async def create(client: AsyncClient, name: str, **more: Any) -> dict[str, Any]:
    response = await client.post("/items", json={"name": name, **more})
    assert response.status_code == 201
    item: dict[str, Any] = response.json()
    return item


async def names_on_page(client: AsyncClient, **query: int) -> tuple[list[str], int | None]:
    page = (await client.get("/items", params=query)).json()
    return [item["name"] for item in page["items"]], page["next"]


def assert_problem(response: Response, status: int) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["status"]) == (status, status)


async def test_create_answers_the_item_with_what_the_server_filled_in(client: AsyncClient) -> None:
    item = await create(client, "pen")
    assert item.keys() == {"id", "name", "description", "created_at", "updated_at"}
    assert (item["name"], item["description"]) == ("pen", None)
    assert item["id"] > 0


async def test_read_answers_what_create_did(client: AsyncClient) -> None:
    item = await create(client, "pen", description="A fine nib, 🖋 and ünïcode")
    response = await client.get(f"/items/{item['id']}")
    assert (response.status_code, response.json()) == (200, item)


async def test_update_changes_only_what_is_sent(client: AsyncClient) -> None:
    item = await create(client, "pen", description="blue")
    response = await client.patch(f"/items/{item['id']}", json={"name": "pencil"})
    assert response.status_code == 200
    changed = response.json()
    assert (changed["name"], changed["description"]) == ("pencil", "blue")
    assert changed == (await client.get(f"/items/{item['id']}")).json()


async def test_update_clears_a_description_that_is_null(client: AsyncClient) -> None:
    item = await create(client, "pen", description="blue")
    response = await client.patch(f"/items/{item['id']}", json={"description": None})
    assert response.json() == item | {"description": None}


async def test_update_with_nothing_changes_nothing(client: AsyncClient) -> None:
    item = await create(client, "pen", description="blue")
    response = await client.patch(f"/items/{item['id']}", json={})
    assert (response.status_code, response.json()) == (200, item)


async def test_update_moves_updated_at_alone(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    past = datetime(2000, 1, 1, tzinfo=UTC)
    insertion = insert(Item).values(name="pen", created_at=past, updated_at=past)
    item_id = await connection.scalar(insertion.returning(Item.id))
    changed = (await client.patch(f"/items/{item_id}", json={"name": "pencil"})).json()
    assert datetime.fromisoformat(changed["created_at"]) == past
    assert datetime.fromisoformat(changed["updated_at"]) > past


async def test_delete_removes_the_item(client: AsyncClient) -> None:
    item = await create(client, "pen")
    response = await client.delete(f"/items/{item['id']}")
    assert (response.status_code, response.content) == (204, b"")
    assert_problem(await client.get(f"/items/{item['id']}"), 404)


async def test_times_say_their_offset(client: AsyncClient) -> None:
    item = await create(client, "pen")
    for field in ("created_at", "updated_at"):
        assert datetime.fromisoformat(item[field]).tzinfo is not None


async def test_the_list_is_empty_at_first(client: AsyncClient) -> None:
    response = await client.get("/items")
    assert (response.status_code, response.json()) == (200, {"items": [], "next": None})


async def test_pages_follow_each_other_to_the_end(client: AsyncClient) -> None:
    for name in "edcba":
        await create(client, name)
    first, after_first = await names_on_page(client, limit=2)
    assert after_first is not None
    second, after_second = await names_on_page(client, limit=2, after=after_first)
    assert after_second is not None
    third, after_third = await names_on_page(client, limit=2, after=after_second)
    assert (first, second, third, after_third) == (["e", "d"], ["c", "b"], ["a"], None)


async def test_a_full_last_page_has_no_next(client: AsyncClient) -> None:
    for name in "ab":
        await create(client, name)
    assert await names_on_page(client, limit=2) == (["a", "b"], None)


async def test_a_page_neither_skips_nor_repeats_when_rows_come_and_go(client: AsyncClient) -> None:
    a, *_ = [await create(client, name) for name in "abcd"]
    _, after = await names_on_page(client, limit=2)
    assert after is not None
    await client.delete(f"/items/{a['id']}")
    await create(client, "e")
    assert await names_on_page(client, after=after) == (["c", "d", "e"], None)


@pytest.mark.parametrize(("query", "size"), [({}, 50), ({"limit": 100}, 100)])
async def test_a_page_is_bounded(
    client: AsyncClient, connection: AsyncConnection, query: dict[str, int], size: int
) -> None:
    await connection.execute(insert(Item), [{"name": str(n)} for n in range(101)])
    names, after = await names_on_page(client, **query)
    assert len(names) == size
    assert after is not None


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("item_id", [1, BIGINT_MAX])
async def test_an_unknown_item_is_404(client: AsyncClient, method: str, item_id: int) -> None:
    response = await client.request(method, f"/items/{item_id}", json={})
    assert_problem(response, 404)
    assert response.json()["detail"] == f"There is no item {item_id}."


async def test_a_taken_name_is_409_on_create(client: AsyncClient) -> None:
    await create(client, "pen")
    response = await client.post("/items", json={"name": "pen"})
    assert_problem(response, 409)
    assert response.json()["detail"] == "Another one has this name."
    assert [fault["location"] for fault in response.json()["errors"]] == ["body.name"]


async def test_a_taken_name_is_409_on_update(client: AsyncClient) -> None:
    await create(client, "pen")
    pencil = await create(client, "pencil")
    response = await client.patch(f"/items/{pencil['id']}", json={"name": "pen"})
    assert_problem(response, 409)
    assert (await client.get(f"/items/{pencil['id']}")).json() == pencil


BAD_VALUES = [
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


@pytest.mark.parametrize(("body", "location"), BAD_VALUES)
async def test_a_bad_value_is_422_on_create(
    client: AsyncClient, body: object, location: str
) -> None:
    response = await client.post("/items", content=json.dumps(body), headers=JSON)
    assert_problem(response, 422)
    assert [fault["location"] for fault in response.json()["errors"]] == [location]


@pytest.mark.parametrize(("body", "location"), BAD_VALUES)
async def test_a_bad_value_is_422_on_update_and_changes_nothing(
    client: AsyncClient, body: object, location: str
) -> None:
    item = await create(client, "pencil")
    path = f"/items/{item['id']}"
    response = await client.patch(path, content=json.dumps(body), headers=JSON)
    assert_problem(response, 422)
    assert [fault["location"] for fault in response.json()["errors"]] == [location]
    assert (await client.get(path)).json() == item


async def test_a_name_is_required(client: AsyncClient) -> None:
    response = await client.post("/items", json={"description": "nameless"})
    assert_problem(response, 422)
    assert response.json()["errors"] == [{"location": "body.name", "detail": "Field required"}]


async def test_the_longest_values_are_stored(client: AsyncClient) -> None:
    await create(client, "🖋" * 200, description="🖋" * 10_000)


NO_NUMBERS = ["x", "1.5", "1e3", "-1", str(BIGINT_MAX + 1), "9" * 5000, "%00", "%FF", "%ED%A0%80"]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("item_id", ["0", *NO_NUMBERS])
async def test_a_bad_id_is_422(client: AsyncClient, method: str, item_id: str) -> None:
    assert_problem(await client.request(method, f"/items/{item_id}", json={}), 422)


@pytest.mark.parametrize("value", ["", *NO_NUMBERS])
@pytest.mark.parametrize("parameter", ["limit", "after"])
async def test_a_bad_query_is_422(client: AsyncClient, parameter: str, value: str) -> None:
    assert_problem(await client.get(f"/items?{parameter}={value}"), 422)


@pytest.mark.parametrize("limit", [0, 101])
async def test_a_limit_out_of_bounds_is_422(client: AsyncClient, limit: int) -> None:
    assert_problem(await client.get("/items", params={"limit": limit}), 422)


async def test_changes_at_the_same_time_do_not_fail(served_client: AsyncClient) -> None:
    """Whoever comes second finds the item changed, or gone."""
    item = await create(served_client, "pen")
    url = f"/items/{item['id']}"
    requests = [served_client.patch(url, json={"name": "new"})]
    requests += [served_client.delete(url) for _ in range(5)]
    statuses = [response.status_code for response in await asyncio.gather(*requests)]
    assert statuses[0] in {200, 404}
    assert sorted(statuses[1:]) == [204, 404, 404, 404, 404]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_items_are_503_while_the_database_is_down(
    client_without_database: AsyncClient, method: str
) -> None:
    response = await client_without_database.request(method, "/items", json={"name": "pen"})
    assert_problem(response, 503)


@pytest.mark.parametrize("time", ["first", "second"])
async def test_no_row_of_another_test_is_seen(client: AsyncClient, time: str) -> None:
    assert await names_on_page(client) == ([], None)
    await create(client, "the same in both")


async def test_openapi_lists_what_each_route_answers(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    answers = {
        (method, path): set(operation["responses"])
        for path in ("/items", "/items/{item_id}")
        for method, operation in paths[path].items()
    }
    assert answers == {
        ("get", "/items"): {"200", "422", "500", "503", "504"},
        ("post", "/items"): {"201", "400", "409", "413", "422", "500", "503", "504"},
        ("get", "/items/{item_id}"): {"200", "404", "422", "500", "503", "504"},
        ("patch", "/items/{item_id}"): {
            *("200", "400", "404", "409", "413", "422", "500", "503", "504")
        },
        ("delete", "/items/{item_id}"): {"204", "404", "422", "500", "503", "504"},
    }


async def test_openapi_leads_from_a_new_item_to_what_can_be_done_with_it(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    parameters = {
        operation["operationId"]: {each["name"] for each in operation.get("parameters", [])}
        for path in paths.values()
        for operation in path.values()
    }
    links = paths["/items"]["post"]["responses"]["201"]["links"].values()
    assert {link["operationId"] for link in links} == {"read_item", "update_item", "delete_item"}
    for link in links:
        assert parameters[link["operationId"]] == link["parameters"].keys() == {"item_id"}


async def test_openapi_knows_the_largest_id(app: FastAPI) -> None:
    """Its numbers are floats, which the largest bigint is not."""
    parameter, *_ = app.openapi()["paths"]["/items/{item_id}"]["get"]["parameters"]
    assert "maximum" not in parameter["schema"]
    assert int(parameter["schema"]["exclusiveMaximum"]) == BIGINT_MAX + 1


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT"])
async def test_a_wrong_method_is_405_and_says_which_work(client: AsyncClient, method: str) -> None:
    for path, allowed in [("/items", "GET, POST"), ("/items/1", "DELETE, GET, PATCH")]:
        response = await client.request(method, path)
        assert (response.status_code, response.headers["allow"]) == (405, allowed)


async def test_the_examples_of_openapi_work(client: AsyncClient, app: FastAPI) -> None:
    schema = app.openapi()["components"]["schemas"]["ItemCreate"]
    name = schema["properties"]["name"]["examples"][0]
    description = schema["properties"]["description"]["anyOf"][0]["examples"][0]
    await create(client, name, description=description)
