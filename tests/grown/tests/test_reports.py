"""The report over HTTP."""

from datetime import UTC, datetime

from factories import add_user, create_customer, create_invoice, upload_prices
from httpx import AsyncClient
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models.invoice import Invoice


async def test_months_have_running_totals_and_ranks(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    await add_user(connection)
    pen = (await upload_prices(client))["pen"]["id"]
    ada = await create_customer(client, "Ada")
    bob = await create_customer(client, "Bob")
    for customer, month, quantity in [(ada, 1, "1"), (ada, 2, "1"), (bob, 2, "2")]:
        invoice = await create_invoice(client, customer, {pen: quantity})
        moved = update(Invoice).where(Invoice.number == invoice["number"])
        await connection.execute(moved.values(created_at=datetime(2026, month, 15, tzinfo=UTC)))
    response = await client.get("/reports/months")
    assert response.status_code == 200, response.text
    names = {ada["id"]: "Ada", bob["id"]: "Bob"}
    assert [
        (row["month"], names[row["customer_id"]], float(row["running_total"]), row["rank"])
        for row in response.json()
    ] == [
        ("2026-01-01", "Ada", 30, 1),
        ("2026-02-01", "Bob", 60, 1),
        ("2026-02-01", "Ada", 60, 2),
    ]
