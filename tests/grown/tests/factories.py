"""Rows that several tests need, and ways to make them over HTTP."""

from hashlib import sha256
from typing import Any

from httpx import AsyncClient
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.database import Database
from app.models.user import User

TOKEN = "token-of-a-test"  # noqa: S105 - of a database that is dropped
LOGIN = {"Authorization": f"Bearer {TOKEN}"}
PRICES = "sku,name,price,unit\npen,Fountain pen,30.00,piece\nhelp,Support,120.50,hour\n"


async def add_user(bind: AsyncConnection | AsyncEngine) -> User:
    async with Database(bind).sessions.begin() as session:
        user = User(email="anna@example.com", token_hash=sha256(TOKEN.encode()).digest())
        session.add(user)
    return user


async def create_customer(client: AsyncClient, name: str = "Ada", **more: Any) -> dict[str, Any]:
    values = {"name": name, "email": f"{name.lower()}@example.com", **more}
    response = await client.post("/customers", json=values)
    assert response.status_code == 201, response.text
    customer: dict[str, Any] = response.json()
    return customer


async def upload_prices(client: AsyncClient, prices: str = PRICES) -> dict[str, dict[str, Any]]:
    """Upload a price list, and return the products by SKU."""
    response = await client.post("/products/import", files={"file": prices})
    assert response.status_code == 200, response.text
    return {product["sku"]: product for product in (await client.get("/products")).json()}


async def create_invoice(
    client: AsyncClient, customer: dict[str, Any], quantities: dict[int, str], *tags: str
) -> dict[str, Any]:
    lines = [{"product_id": key, "quantity": quantity} for key, quantity in quantities.items()]
    body = {"customer_id": customer["id"], "lines": lines, "tags": tags}
    response = await client.post("/invoices", json=body, headers=LOGIN)
    assert response.status_code == 201, response.text
    invoice: dict[str, Any] = response.json()
    return invoice
