"""Queries and rules. The caller owns the transaction."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotFound
from app.items.schemas import ItemCreate, ItemUpdate
from app.models.item import Item


async def create(session: AsyncSession, new: ItemCreate) -> Item:
    item = Item(**new.model_dump())
    session.add(item)
    await session.flush()
    return item


async def get_page(
    session: AsyncSession, after: int, limit: int
) -> tuple[Sequence[Item], int | None]:
    """Return at most `limit` items with ids above `after`, and the last id if more follow."""
    query = select(Item).where(Item.id > after).order_by(Item.id).limit(limit + 1)
    items = (await session.scalars(query)).all()
    page = items[:limit]
    return page, page[-1].id if len(items) > limit else None


async def get(session: AsyncSession, item_id: int, *, lock: bool = False) -> Item:
    """Return the item, and lock its row against other writers if `lock`. Raises NotFound."""
    item = await session.get(Item, item_id, with_for_update=lock)
    if item is None:
        raise NotFound(f"There is no item {item_id}.")
    return item


async def update(session: AsyncSession, item_id: int, changes: ItemUpdate) -> Item:
    item = await get(session, item_id, lock=True)
    for field, value in changes.model_dump(exclude_unset=True).items():
        setattr(item, field, value)
    await session.flush()
    return item


async def delete(session: AsyncSession, item_id: int) -> None:
    item = await get(session, item_id, lock=True)
    await session.delete(item)
