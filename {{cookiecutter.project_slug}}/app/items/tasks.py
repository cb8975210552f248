"""Jobs of items, which the worker runs. Enqueue one in the transaction of its item."""

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from app.items import service
from app.jobs.queue import job
from app.types import Id


class ItemRef(BaseModel):
    """Ids and no rows: a job reads the rows as they are when it runs."""

    item_id: Id


@job(seconds=10, attempts=5)
async def describe(session: AsyncSession, payload: ItemRef) -> None:
    """Give an item its description, as a slow service would. A job may run twice: see `if`."""
    item = await service.lock(session, payload.item_id)
    if item.description is None:
        item.description = f"All about {item.name}"
