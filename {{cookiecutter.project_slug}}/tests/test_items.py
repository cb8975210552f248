"""The example feature over HTTP."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models.item import Item


async def create(client: AsyncClient, name: str, **more: Any) -> dict[str, Any]:
    response = await client.post("/items", json={"name": name, **more})
    assert response.status_code == 201
    item: dict[str, Any] = response.json()
    return item


async def read_names(client: AsyncClient, **query: int) -> tuple[list[str], int | None]:
    page = (await client.get("/items", params=query)).json()
    return [item["name"] for item in page["items"]], page["next"]


def wrong_fields(response: Response) -> list[str]:
    return [error["location"] for error in response.json()["errors"]]


async def test_create_returns_the_stored_item(client: AsyncClient) -> None:
    item = await create(client, "pen", description="A fine nib, 🖋 and ünïcode")
    assert item.keys() == {"id", "name", "description", "created_at", "updated_at"}
    assert (item["name"], item["description"]) == ("pen", "A fine nib, 🖋 and ünïcode")
    assert item["id"] > 0
    assert datetime.fromisoformat(item["created_at"]).tzinfo
    assert datetime.fromisoformat(item["updated_at"]).tzinfo
    response = await client.get(f"/items/{item['id']}")
    assert (response.status_code, response.json()) == (200, item)


@pytest.mark.parametrize("changes", [{"name": "pencil"}, {"description": None}, {}])
async def test_update_changes_only_the_sent_fields(
    client: AsyncClient, changes: dict[str, Any]
) -> None:
    item = await create(client, "pen", description="blue")
    response = await client.patch(f"/items/{item['id']}", json=changes)
    assert (response.status_code, response.json()) == (200, item | changes)
    assert (await client.get(f"/items/{item['id']}")).json() == item | changes


async def test_update_moves_updated_at_only(
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
    assert (await client.get(f"/items/{item['id']}")).status_code == 404


async def test_list_is_empty_at_first(client: AsyncClient) -> None:
    response = await client.get("/items")
    assert (response.status_code, response.json()) == (200, {"items": [], "next": None})


async def test_pages_follow_each_other_to_the_end(client: AsyncClient) -> None:
    for name in "edcba":
        await create(client, name)
    first, after_first = await read_names(client, limit=2)
    assert after_first is not None
    second, after_second = await read_names(client, limit=2, after=after_first)
    assert after_second is not None
    third, after_third = await read_names(client, limit=2, after=after_second)
    assert (first, second, third, after_third) == (["e", "d"], ["c", "b"], ["a"], None)


async def test_full_last_page_has_no_next(client: AsyncClient) -> None:
    for name in "ab":
        await create(client, name)
    assert await read_names(client, limit=2) == (["a", "b"], None)


async def test_next_page_neither_skips_nor_repeats_after_changes(client: AsyncClient) -> None:
    first, *_ = [await create(client, name) for name in "abcd"]
    _, after = await read_names(client, limit=2)
    assert after is not None
    await client.delete(f"/items/{first['id']}")
    await create(client, "e")
    assert await read_names(client, after=after) == (["c", "d", "e"], None)


@pytest.mark.parametrize(("query", "size"), [({}, 50), ({"limit": 100}, 100)])
async def test_page_size_is_bounded(
    client: AsyncClient, connection: AsyncConnection, query: dict[str, int], size: int
) -> None:
    await connection.execute(insert(Item), [{"name": str(n)} for n in range(101)])
    names, after = await read_names(client, **query)
    assert len(names) == size
    assert after is not None


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_unknown_item_is_404(client: AsyncClient, method: str) -> None:
    response = await client.request(method, "/items/1", json={})
    assert (response.status_code, response.json()["detail"]) == (404, "There is no item 1.")


async def test_taken_name_is_409(client: AsyncClient) -> None:
    await create(client, "pen")
    other = await create(client, "pencil")
    for response in [
        await client.post("/items", json={"name": "pen"}),
        await client.patch(f"/items/{other['id']}", json={"name": "pen"}),
    ]:
        assert response.status_code == 409
        assert response.json()["detail"] == "Another one has this name."
        assert wrong_fields(response) == ["body.name"]
    assert (await client.get(f"/items/{other['id']}")).json() == other


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": None}, "name"),
        ({"name": "NUL \0"}, "name"),
        ({"name": "pen", "description": "x" * 10_001}, "description"),
        ({"name": "pen", "description": "NUL \0"}, "description"),
    ],
)
async def test_wrong_value_is_422(client: AsyncClient, values: dict[str, Any], field: str) -> None:
    item = await create(client, "pencil")
    for method, path in [("POST", "/items"), ("PATCH", f"/items/{item['id']}")]:
        response = await client.request(method, path, json=values)
        assert (response.status_code, wrong_fields(response)) == (422, [f"body.{field}"])
    assert (await client.get(f"/items/{item['id']}")).json() == item


async def test_name_is_required(client: AsyncClient) -> None:
    response = await client.post("/items", json={"description": "nameless"})
    assert (response.status_code, wrong_fields(response)) == (422, ["body.name"])


async def test_longest_values_are_stored(client: AsyncClient) -> None:
    await create(client, "🖋" * 200, description="🖋" * 10_000)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "after=-1", "after=x"])
async def test_wrong_query_is_422(client: AsyncClient, query: str) -> None:
    assert (await client.get(f"/items?{query}")).status_code == 422


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("item_id", ["0", "x", 2**63])
async def test_wrong_id_is_422(client: AsyncClient, method: str, item_id: object) -> None:
    response = await client.request(method, f"/items/{item_id}", json={})
    assert response.status_code == 422


async def test_concurrent_changes_do_not_fail(served_client: AsyncClient) -> None:
    """A later request finds the item changed or gone."""
    item = await create(served_client, "pen")
    url = f"/items/{item['id']}"
    requests = [served_client.patch(url, json={"name": "new"})]
    requests += [served_client.delete(url) for _ in range(5)]
    statuses = [response.status_code for response in await asyncio.gather(*requests)]
    assert statuses[0] in {200, 404}
    assert sorted(statuses[1:]) == [204, 404, 404, 404, 404]


async def test_openapi_lists_the_responses_of_each_route(app: FastAPI) -> None:
    responses = {
        operation["operationId"]: " ".join(operation["responses"])
        for path in app.openapi()["paths"].values()
        for operation in path.values()
        if operation["operationId"].startswith("items_")
    }
    assert responses == {
        "items_create": "201 400 409 413 422 500 503 504",
        "items_read_page": "200 422 500 503 504",
        "items_read": "200 404 422 500 503 504",
        "items_update": "200 400 404 409 413 422 500 503 504",
        "items_delete": "204 404 422 500 503 504",
    }
