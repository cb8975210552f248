"""Customers over HTTP."""

import json
from typing import Any
from uuid import UUID

from factories import create_customer
from httpx import AsyncClient
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models.customer import Customer


async def test_labels_and_details_are_stored(client: AsyncClient) -> None:
    details = {"phone": "+1", "age": 36, "news": True}
    values: dict[str, Any] = {"labels": ["vip", "new"], "details": details}
    customer = await create_customer(client, **values)
    assert customer.items() >= values.items()
    assert UUID(customer["id"]).version == 4
    found = (await client.get("/customers", params={"label": "vip"})).json()
    assert found == [customer]
    assert (await client.get("/customers", params={"label": "old"})).json() == []


async def test_email_is_unique_among_customers_that_are_not_deleted(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    customer = await create_customer(client)
    same = {"name": "Other", "email": customer["email"]}
    response = await client.post("/customers", json=same)
    assert response.status_code == 409
    assert [error["location"] for error in response.json()["errors"]] == ["body.email"]

    assert (await client.delete(f"/customers/{customer['id']}")).status_code == 204
    assert (await client.delete(f"/customers/{customer['id']}")).status_code == 404
    assert (await client.post("/customers", json=same)).status_code == 201
    assert await connection.scalar(select(func.count()).select_from(Customer)) == 2


async def test_export_streams_every_customer(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    """In more than one batch."""
    values = [{"name": f"Name {n}", "email": f"{n}@example.com"} for n in range(2500)]
    await connection.execute(insert(Customer), values)
    async with client.stream("GET", "/customers/export") as response:
        assert response.headers["content-type"] == "application/jsonl"
        emails = [json.loads(line)["email"] async for line in response.aiter_lines()]
    assert sorted(emails) == sorted(value["email"] for value in values)
