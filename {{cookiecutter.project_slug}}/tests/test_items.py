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


async def read_names(client: AsyncClient, **query: Any) -> tuple[list[str], int | None]:
    page = (await client.get("/items", params=query)).json()
    return [item["name"] for item in page["items"]], page["next"]


def wrong_fields(response: Response) -> list[str]:
    return [error["location"] for error in response.json()["errors"]]


pytestmark = pytest.mark.usefixtures("signed_in")  # option: auth=accounts,oidc


async def test_create_returns_the_stored_item(client: AsyncClient) -> None:
    """It returns and stores the longest values that are allowed."""
    values = {"name": "🖋" * 200, "description": "é" * 10_000}
    item = await create(client, **values)
    assert item.keys() == {"id", "name", "description", "created_at", "updated_at"}
    assert item.items() >= values.items()
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
    # The requests of `client` share a transaction, in which now() stands: so does updated_at.
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


async def test_pages_follow_each_other_to_the_end(client: AsyncClient) -> None:
    assert await read_names(client) == ([], None)
    for name in "dcba":
        await create(client, name)
    first, after = await read_names(client, limit=2)
    assert first == ["d", "c"]
    assert await read_names(client, limit=2, after=after) == (["b", "a"], None)


async def test_next_page_neither_skips_nor_repeats_after_changes(client: AsyncClient) -> None:
    first, *_ = [await create(client, name) for name in "abcd"]
    _, after = await read_names(client, limit=2)
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
        assert response.json()["detail"] == "Another record has this name."
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


@pytest.mark.parametrize(
    "path", ["?limit=0", "?limit=101", "?limit=x", "?after=-1", "/0", "/x", f"/{2**63}"]
)
async def test_wrong_number_is_422(client: AsyncClient, path: str) -> None:
    assert (await client.get(f"/items{path}")).status_code == 422


async def test_concurrent_changes_do_not_fail(served_client: AsyncClient) -> None:
    """`served_client` commits. A later request finds the item changed or gone."""
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
    responses = {k: v.replace(" 401", "") for k, v in responses.items()}  # option: auth=accounts
    responses = {k: v.replace(" 401 403", "") for k, v in responses.items()}  # option: auth=oidc
    assert responses == {
        "items_create": "201 400 409 413 422 500 503 504",
        "items_read_page": "200 422 500 503 504",
        "items_read": "200 404 422 500 503 504",
        "items_update": "200 400 404 409 413 422 500 503 504",
        "items_delete": "204 404 422 500 503 504",
    }
