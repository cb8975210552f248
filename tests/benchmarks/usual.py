"""The example as most templates have it: a transaction around each read, and nothing besides.

Under `/constant` the same answers without a database: what FastAPI takes for itself.
"""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from app.items.schemas import ItemCreate, ItemPage, ItemRead
from app.models.item import Item
from fastapi import Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=15, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def get_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


async def get_nothing() -> AsyncIterator[None]:
    yield


Session = Annotated[AsyncSession, Depends(get_session)]
Nothing = Annotated[None, Depends(get_nothing)]

NOW = datetime.now(UTC)
ITEM = ItemRead(id=1, name="item 1", description="description 1", created_at=NOW, updated_at=NOW)
PAGE = ItemPage(items=[ITEM] * 50, next=50)


async def list_items(session: Session, limit: int = 50, after: int = 0) -> ItemPage:
    query = select(Item).where(Item.id > after).order_by(Item.id).limit(limit + 1)
    items = (await session.scalars(query)).all()
    last_id = items[limit - 1].id if len(items) > limit else None
    return ItemPage.model_validate({"items": items[:limit], "next": last_id})


async def read_item(item_id: int, session: Session) -> Item | None:
    return await session.get(Item, item_id)


async def create_item(new: ItemCreate, session: Session) -> Item:
    item = Item(**new.model_dump())
    session.add(item)
    await session.commit()
    return item


async def list_constant(nothing: Nothing, limit: int = 50, after: int = 0) -> ItemPage:
    return PAGE


async def read_constant(item_id: int, nothing: Nothing) -> ItemRead:
    return ITEM


async def create_constant(new: ItemCreate, nothing: Nothing) -> ItemRead:
    return ITEM


READ = {"response_model": ItemRead}
CREATE = {**READ, "methods": ["POST"], "status_code": 201}

app = FastAPI()
app.add_api_route("/items", list_items)
app.add_api_route("/items", create_item, **CREATE)
app.add_api_route("/items/{item_id}", read_item, **READ)
app.add_api_route("/constant/items", list_constant)
app.add_api_route("/constant/items", create_constant, **CREATE)
app.add_api_route("/constant/items/{item_id}", read_constant, **READ)
