"""Jobs of items."""

from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncConnection

from app.database import Database
from app.items.tasks import ItemRef, describe
from app.jobs.queue import enqueue
from app.models.item import Item

RunJobs = Callable[[], Awaitable[list[str]]]


async def test_item_gets_a_description(connection: AsyncConnection, run_jobs: RunJobs) -> None:
    database = Database(connection)
    async with database.sessions.begin() as session:
        item = Item(name="Fountain pen")
        session.add(item)
        await session.flush()
        await enqueue(session, describe, ItemRef(item_id=item.id))
    assert await run_jobs() == ["items.describe"]
    found = await database.reader.get(Item, item.id)
    assert found
    assert found.description == "All about Fountain pen"
