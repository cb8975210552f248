"""Customers over HTTP."""

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest
from factories import add_user, create_customer, create_invoice, upload_prices
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.dependencies import Session
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


@pytest.mark.parametrize(
    ("query", "names"),
    [({}, "Ann Eve Zoe"), ({"label": "vip"}, "Ann Eve"), ({"sort": "email"}, "Zoe Ann Eve")],
)
async def test_filter_and_sort_are_optional(
    client: AsyncClient, query: dict[str, str], names: str
) -> None:
    await create_customer(client, "Zoe", email="a@example.com")
    for name in ("Eve", "Ann"):
        await create_customer(client, name, labels=["vip"])
    found = (await client.get("/customers", params=query)).json()
    assert [customer["name"] for customer in found] == names.split()


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


async def test_change_of_an_older_version_is_a_conflict(client: AsyncClient) -> None:
    customer = await create_customer(client)
    changes = [{"name": name, "version": customer["version"]} for name in ("Ann", "Eve")]
    path = f"/customers/{customer['id']}"
    first, second = [await client.patch(path, json=change) for change in changes]
    assert first.json() == customer | {"name": "Ann", "version": customer["version"] + 1}
    assert second.status_code == 409


async def test_one_of_concurrent_changes_succeeds(served_client: AsyncClient) -> None:
    """The others wait for the lock, and then read the new version."""
    customer = await create_customer(served_client)
    path, change = f"/customers/{customer['id']}", {"name": "Ann", "version": customer["version"]}
    requests = [served_client.patch(path, json=change) for _ in range(5)]
    statuses = [response.status_code for response in await asyncio.gather(*requests)]
    assert sorted(statuses) == [200, 409, 409, 409, 409]


async def test_change_without_a_lock_is_a_conflict(
    app: FastAPI, client: AsyncClient, connection: AsyncConnection
) -> None:
    customer = await create_customer(client)

    @app.post("/concurrent/{customer_id}")
    async def change(customer_id: UUID, session: Session) -> None:
        stored = await session.get_one(Customer, customer_id)
        await connection.execute(text("UPDATE customers SET version = 2"))
        stored.name = "Eve"

    response = await client.post(f"/concurrent/{customer['id']}")
    assert response.status_code == 409
    assert response.json()["detail"] == "Another request has changed it meanwhile."


@pytest.mark.parametrize("loaded", [[], ["invoices"]])
async def test_row_of_a_customer_with_invoices_stays(
    app: FastAPI, client: AsyncClient, connection: AsyncConnection, loaded: list[str]
) -> None:
    """The relation leaves its rows to the foreign key, whether they are loaded or not."""
    await add_user(connection)
    customer, products = await create_customer(client), await upload_prices(client)
    await create_invoice(client, customer, {products["pen"]["id"]: "1"})

    @app.delete("/rows/{customer_id}", status_code=204)
    async def delete(customer_id: UUID, session: Session) -> None:
        stored = await session.get_one(Customer, customer_id)
        await session.refresh(stored, loaded or None)
        await session.delete(stored)

    response = await client.delete(f"/rows/{customer['id']}")
    assert response.status_code == 409
    assert response.json()["detail"] == "Another record still refers to it by customer_id."


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
