"""Queries and rules. A service never commits: the `Session` of the route does."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Integer, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Reader
from app.errors import NotFound
from app.items.schemas import ItemCreate, ItemUpdate
from app.models.item import Item

# Built once, at import. `reader.rows` binds the values by name.
BY_ID = select(Item).where(Item.id == bindparam("item_id"))
PAGE = (
    select(Item)
    .where(Item.id > bindparam("after"))
    .order_by(Item.id)
    .limit(bindparam("limit", type_=Integer))  # no column gives it its type
)


async def create(session: AsyncSession, new: ItemCreate) -> Item:
    item = Item(**new.model_dump())
    session.add(item)
    await session.flush()
    return item


async def read_page(reader: Reader, after: int, limit: int) -> tuple[Sequence[Any], int | None]:
    """Return at most `limit` rows with ids above `after`, and the last id if more rows follow."""
    rows = await reader.rows(PAGE, {"after": after, "limit": limit + 1})
    page = rows[:limit]
    return page, page[-1].id if len(rows) > limit else None


async def read(reader: Reader, item_id: int) -> Any:
    """Return the item's row, which has the columns as attributes. Raises NotFound."""
    rows = await reader.rows(BY_ID, {"item_id": item_id})
    if not rows:
        raise NotFound(f"There is no item {item_id}.")
    return rows[0]


async def lock(session: AsyncSession, item_id: int) -> Item:
    """Return the item for a write, its row locked until the commit. Raises NotFound."""
    item = await session.get(Item, item_id, with_for_update=True)
    if item is None:
        raise NotFound(f"There is no item {item_id}.")
    return item


async def update(session: AsyncSession, item_id: int, changes: ItemUpdate) -> Item:
    item = await lock(session, item_id)
    for field, value in changes.model_dump(exclude_unset=True).items():
        setattr(item, field, value)
    await session.flush()
    return item


async def delete(session: AsyncSession, item_id: int) -> None:
    item = await lock(session, item_id)  # a second delete waits, then is a 404
    await session.delete(item)
    await session.flush()
