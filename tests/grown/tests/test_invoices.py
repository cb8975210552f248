"""Invoices over HTTP: relations, the login, and what is pushed to clients."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from conftest import settings_for
from factories import LOGIN, add_user, create_customer, create_invoice, upload_prices
from httpx import AsyncClient
from sqlalchemy import URL, NullPool, text
from sqlalchemy.ext.asyncio import AsyncConnection
from websockets.asyncio.client import connect

from app.database import create_engine

TERMINATE = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'LISTEN%'
""")


async def prepare(client: AsyncClient) -> tuple[dict[str, Any], dict[str, Any]]:
    return await create_customer(client), await upload_prices(client)


async def test_invoice_is_read_with_its_relations(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    await add_user(connection)
    customer, products = await prepare(client)
    quantities = {products["pen"]["id"]: "2", products["help"]["id"]: "0.5"}
    invoice = await create_invoice(client, customer, quantities, "spring", "net")
    assert invoice["number"] >= 1000
    assert invoice["customer"] == {"id": customer["id"], "name": "Ada"}
    lines = [(float(line["quantity"]), line["price"]) for line in invoice["lines"]]
    assert lines == [(2, "30.00"), (0.5, "120.50")]
    response = await client.get(f"/invoices/{invoice['number']}")
    assert response.status_code == 200
    read = response.json()
    assert read["tags"] == invoice["tags"] == [{"name": "net"}, {"name": "spring"}]
    assert read["customer"] == invoice["customer"]
    assert len(read["lines"]) == 2


async def test_numbers_come_from_the_sequence(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    await add_user(connection)
    customer, products = await prepare(client)
    first, second = [
        await create_invoice(client, customer, {products["pen"]["id"]: "1"}, "net")
        for _ in range(2)
    ]
    assert second["number"] == first["number"] + 1


@pytest.mark.parametrize(
    ("headers", "code"), [({}, None), ({"Authorization": "Bearer unknown"}, "unknown_token")]
)
async def test_login_is_needed(
    client: AsyncClient, headers: dict[str, str], code: str | None
) -> None:
    body = {"customer_id": str(uuid4()), "lines": [{"product_id": 1, "quantity": "1"}]}
    response = await client.post("/invoices", json=body, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json().get("code") == code


async def test_customer_and_product_must_exist(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    await add_user(connection)
    _, products = await prepare(client)
    lines = [{"product_id": products["pen"]["id"], "quantity": "1"}]
    body = {"customer_id": str(uuid4()), "lines": lines}
    response = await client.post("/invoices", json=body, headers=LOGIN)
    assert response.status_code == 409
    assert [error["location"] for error in response.json()["errors"]] == ["body.customer_id"]
    lines[0]["product_id"] = 2**62
    assert (await client.post("/invoices", json=body, headers=LOGIN)).status_code == 404


@pytest.mark.parametrize(
    ("due_at", "status"), [("2027-01-31T12:00:00", 422), ("2027-01-31T12:00:00+01:00", 201)]
)
async def test_time_needs_its_zone(
    client: AsyncClient, connection: AsyncConnection, due_at: str, status: int
) -> None:
    await add_user(connection)
    customer, products = await prepare(client)
    lines = [{"product_id": products["pen"]["id"], "quantity": "1"}]
    body = {"customer_id": customer["id"], "lines": lines, "due_at": due_at}
    response = await client.post("/invoices", json=body, headers=LOGIN)
    assert response.status_code == status
    if status == 422:
        assert [error["location"] for error in response.json()["errors"]] == ["body.due_at"]
    else:
        assert response.json()["due_at"] == due_at


async def test_invoice_is_paid_once(client: AsyncClient, connection: AsyncConnection) -> None:
    await add_user(connection)
    customer, products = await prepare(client)
    invoice = await create_invoice(client, customer, {products["pen"]["id"]: "1"})
    path = f"/invoices/{invoice['number']}"
    statuses = [(await client.post(f"{path}/payment", headers=LOGIN)).status_code for _ in "12"]
    assert statuses == [204, 409]
    assert (await client.get(path)).json()["status"] == "paid"


@pytest.fixture
async def remote(live_server: str, fresh_url: URL) -> AsyncIterator[AsyncClient]:
    """A client of the served application, whose database has a user."""
    engine = create_engine(settings_for(fresh_url), poolclass=NullPool)
    await add_user(engine)
    async with AsyncClient(base_url=live_server, timeout=10) as client:
        yield client


async def next_event(lines: AsyncIterator[str]) -> dict[str, Any]:
    async for line in lines:
        if line.startswith("data: "):
            event: dict[str, Any] = json.loads(line.removeprefix("data: "))
            return event
    pytest.fail("the stream has ended")


async def test_each_change_is_an_event(remote: AsyncClient) -> None:
    customer, products = await prepare(remote)
    async with remote.stream("GET", "/invoices/open/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.aiter_lines()
        assert (await next_event(lines))["invoices"] == 0
        invoice = await create_invoice(remote, customer, {products["pen"]["id"]: "2"})
        assert await next_event(lines) == {"invoices": 1, "total": "60.00000"}
        await remote.post(f"/invoices/{invoice['number']}/payment", headers=LOGIN)
        assert (await next_event(lines))["invoices"] == 0


async def test_lost_connection_of_the_listener_is_replaced(
    remote: AsyncClient, fresh_url: URL
) -> None:
    customer, products = await prepare(remote)
    async with remote.stream("GET", "/invoices/open/events") as response:
        lines = response.aiter_lines()
        assert (await next_event(lines))["invoices"] == 0
        async with create_engine(settings_for(fresh_url), poolclass=NullPool).begin() as other:
            terminated = await other.scalars(TERMINATE)
            assert terminated.all() == [True]
        assert (await next_event(lines))["invoices"] == 0  # by the new connection
        await create_invoice(remote, customer, {products["pen"]["id"]: "2"})
        assert (await next_event(lines))["invoices"] == 1


async def test_each_change_reaches_a_socket(remote: AsyncClient, live_server: str) -> None:
    customer, products = await prepare(remote)
    address = live_server.replace("http", "ws", 1) + "/invoices/open/socket"
    async with connect(address) as socket:
        assert json.loads(await socket.recv())["invoices"] == 0
        await create_invoice(remote, customer, {products["pen"]["id"]: "2"})
        message = await asyncio.wait_for(socket.recv(), 10)
        assert json.loads(message) == {"invoices": 1, "total": "60.00000"}
