"""Tables with names that are words of SQL or of SQLAlchemy, and the middleware."""

from uuid import UUID

from factories import create_customer
from httpx import AsyncClient
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database import Database
from app.models.note import Note
from app.models.order import Channel, Order
from app.models.text import Text


async def test_note_order_and_text_are_stored(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    customer = UUID((await create_customer(client))["id"])
    note = Note(customer_id=customer, body="Calls back")
    order = Order(customer_id=customer, channel=Channel.PHONE, limit=3)
    text = Text(key="hello", language="de", text="Hallo")
    async with Database(connection).sessions.begin() as session:
        session.add_all([note, order, text])
    async with Database(connection).sessions() as session:
        stored = await session.get_one(Order, order.id)
        assert (stored.channel, stored.limit) == (Channel.PHONE, 3)


async def test_every_response_names_the_version(client: AsyncClient) -> None:
    for path in ("/items", "/unknown"):
        assert (await client.get(path)).headers["api-version"] == "2026-12"
